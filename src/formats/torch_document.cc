#include <optional>

#include "base/error.h"
#include "formats/document.h"
#include "formats/pickle.h"
#include "formats/zip_file.h"

namespace wideload::formats {
namespace {

constexpr int kMaxDepth = 100;
// A pickle may use one value many times, a tree may not.
constexpr int64_t kMaxValues = int64_t{1} << 28;

DType StorageType(const std::string& type, const std::string& where) {
  static constexpr std::pair<std::string_view, DType> kTypes[] = {
      {"DoubleStorage", DType::kF64}, {"FloatStorage", DType::kF32},
      {"HalfStorage", DType::kF16},   {"BFloat16Storage", DType::kBF16},
      {"LongStorage", DType::kI64},   {"IntStorage", DType::kI32},
      {"ShortStorage", DType::kI16},  {"CharStorage", DType::kI8},
      {"ByteStorage", DType::kU8},    {"BoolStorage", DType::kU8}};
  for (const auto& [name, dtype] : kTypes)
    if (name == type) return dtype;
  Throw(ErrorKind::kUnsupported, "{}: a tensor of {} is not supported", where, type);
}

class TorchReader {
 public:
  TorchReader(std::span<const std::byte> bytes, const std::string& source)
      : zip_(bytes, source), source_(source) {
    constexpr std::string_view kPickle = "data.pkl";
    for (const auto& [name, member] : zip_.members())
      if (name == kPickle || name.ends_with("/" + std::string(kPickle)))
        prefix_ = name.substr(0, name.size() - kPickle.size());
    const std::string pickle = prefix_ + std::string(kPickle);
    if (!zip_.Has(pickle))
      Throw(ErrorKind::kCorrupt, "{}: is no file of torch.save: it has no data.pkl", source);
    if (zip_.Has(prefix_ + "byteorder")) {
      std::string buffer;
      const std::span<const std::byte> order = zip_.Read(prefix_ + "byteorder", buffer);
      if (std::string_view(reinterpret_cast<const char*>(order.data()), order.size()) != "little")
        Throw(ErrorKind::kUnsupported, "{}: was written in big-endian order; little is supported",
              source);
    }
    std::string buffer;
    pickle_ = ParsePickle(zip_.Read(pickle, buffer), source + ": " + pickle);
  }

  Document Run() { return Node(pickle_.root, 0); }

 private:
  Document Node(uint32_t index, int depth) {
    if (depth > kMaxDepth)
      Throw(ErrorKind::kCorrupt, "{}: is nested deeper than {}", source_, kMaxDepth);
    Count(1);
    const auto& value = pickle_.values[index].value;
    if (const auto* flag = std::get_if<bool>(&value)) return Document(*flag);
    if (const auto* text = std::get_if<std::string>(&value)) return Document(*text);
    if (const auto* tensor = std::get_if<PickledTensor>(&value)) return Document(Array(*tensor));
    if (const auto* list = std::get_if<PickledValue::List>(&value)) return ListOf(*list, depth);
    if (const auto* dict = std::get_if<PickledValue::Dict>(&value)) return DictOf(*dict, depth);
    if (std::holds_alternative<std::monostate>(value)) return {};
    if (const std::optional<double> number = NumberOf(index))
      return Document(
          NumberArray{.values = {*number}, .of_integers = std::holds_alternative<int64_t>(value)});
    Throw(ErrorKind::kCorrupt, "{}: a name or storage stands where a value should", source_);
  }

  void Count(int64_t values) {
    num_values_ += values;
    if (num_values_ > kMaxValues)
      Throw(ErrorKind::kResource, "{}: holds more than {} values", source_, kMaxValues);
  }

  std::optional<double> NumberOf(uint32_t index) const {
    const auto& value = pickle_.values[index].value;
    if (const auto* integer = std::get_if<int64_t>(&value)) return static_cast<double>(*integer);
    if (const auto* number = std::get_if<double>(&value)) return *number;
    return std::nullopt;
  }

  // Lists of numbers are arrays; so are lists of arrays of one shape.
  Document ListOf(const PickledValue::List& list, int depth) {
    NumberArray numbers{.shape = {std::ssize(list.items)}};
    for (const uint32_t item : list.items) {
      const std::optional<double> number = NumberOf(item);
      if (!number) break;
      numbers.of_integers &= std::holds_alternative<int64_t>(pickle_.values[item].value);
      numbers.values.push_back(*number);
    }
    Count(std::ssize(numbers.values));
    if (numbers.values.size() == list.items.size()) return Document(std::move(numbers));
    Document::List items;
    for (const uint32_t item : list.items) items.push_back(Node(item, depth + 1));
    return Join(std::move(items));
  }

  static Document Join(Document::List items) {
    const NumberArray* first = items.empty() ? nullptr : items[0].AsArray();
    for (const Document& item : items) {
      const NumberArray* array = item.AsArray();
      if (first == nullptr || array == nullptr || array->shape != first->shape)
        return Document(std::move(items));
    }
    NumberArray joined{.shape = first->shape};
    joined.shape.insert(joined.shape.begin(), std::ssize(items));
    for (const Document& item : items) {
      const NumberArray& array = *item.AsArray();
      joined.of_integers &= array.of_integers;
      joined.values.insert(joined.values.end(), array.values.begin(), array.values.end());
    }
    return Document(std::move(joined));
  }

  Document DictOf(const PickledValue::Dict& dict, int depth) {
    Document::Dict items;
    for (const auto& [key, value] : dict.items) {
      const auto* text = std::get_if<std::string>(&pickle_.values[key].value);
      const auto* integer = std::get_if<int64_t>(&pickle_.values[key].value);
      if (text == nullptr && integer == nullptr)
        Throw(ErrorKind::kUnsupported, "{}: a dictionary has a key that is no text or integer",
              source_);
      items.insert_or_assign(text ? *text : fmt::to_string(*integer), Node(value, depth + 1));
    }
    return Document(std::move(items));
  }

  NumberArray Array(const PickledTensor& tensor) {
    const std::string member = prefix_ + "data/" + tensor.storage_key;
    const std::string where = source_ + ": " + member;
    const DType dtype = StorageType(tensor.storage_type, where);
    std::string buffer;
    const std::span<const std::byte> data = zip_.Read(member, buffer);
    const int64_t available = std::ssize(data) / DTypeBytes(dtype);
    const int64_t elements = CheckedElements(tensor.shape, where);
    Count(elements);
    Count(available);
    if (elements > 0) CheckStrides(tensor, available, where);
    const NumberArray storage =
        ArrayOfTensor(TensorView(dtype, Shape{available}, data.data()), where);
    NumberArray array{.shape = tensor.shape, .values = {}, .of_integers = storage.of_integers};
    array.values.reserve(static_cast<size_t>(elements));
    std::vector<int64_t> index(tensor.shape.size(), 0);
    for (int64_t i = 0; i < elements; ++i) {
      int64_t at = tensor.offset;
      for (size_t d = 0; d < index.size(); ++d) at += index[d] * tensor.strides[d];
      array.values.push_back(storage.values[static_cast<size_t>(at)]);
      for (size_t d = index.size(); d-- > 0;) {
        if (++index[d] < tensor.shape[d]) break;
        index[d] = 0;
      }
    }
    return array;
  }

  // The last element lies within the storage. Shape and strides are checked one by one, so that
  // nothing overflows.
  static void CheckStrides(const PickledTensor& tensor, int64_t available,
                           const std::string& where) {
    int64_t left = available - 1 - tensor.offset;
    bool fits = tensor.offset >= 0 && left >= 0;
    for (size_t d = 0; fits && d < tensor.shape.size(); ++d) {
      const int64_t steps = tensor.shape[d] - 1;
      const int64_t stride = tensor.strides[d];
      fits = stride >= 0 && (steps == 0 || stride <= left / steps);
      left -= fits ? steps * stride : 0;
    }
    if (!fits)
      Throw(ErrorKind::kCorrupt, "{}: a tensor {} from element {} on lies beyond the {} elements",
            where, ShapeText(tensor.shape), tensor.offset, available);
  }

  ZipFile zip_;
  const std::string& source_;
  std::string prefix_;
  Pickle pickle_;
  int64_t num_values_ = 0;
};

}  // namespace

Document ParseTorchDocument(std::span<const std::byte> bytes, const std::string& source) {
  if (!ZipFile::Is(bytes))
    Throw(ErrorKind::kUnsupported,
          "{}: is no zip archive; files of torch.save from PyTorch 1.6 on are supported", source);
  return TorchReader(bytes, source).Run();
}

}  // namespace wideload::formats
