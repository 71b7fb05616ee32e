#include "formats/npy.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/file.h"
#include "formats/zip_file.h"

namespace wideload::formats {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kMaxRank = 32;

struct Header {
  std::string descr;
  bool is_fortran = false;
  std::vector<int64_t> shape;
};

// The header is a Python dictionary; of Python only what numpy.save writes is read.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& source) : text_(text), source_(source) {}

  Header Run() {
    Header header;
    Expect('{');
    while (!Accept('}')) {
      const std::string key = String();
      Expect(':');
      if (key == "descr")
        header.descr = String();
      else if (key == "fortran_order")
        header.is_fortran = Bool();
      else if (key == "shape")
        header.shape = Tuple();
      else
        Refuse();
      ++keys_;
      if (!Accept(',')) {
        Expect('}');
        break;
      }
    }
    if (keys_ != 3) Refuse();
    return header;
  }

 private:
  [[noreturn]] void Refuse() const {
    Throw(ErrorKind::kCorrupt,
          "{}: the .npy header is \"{}\"; it must tell descr, fortran_order and shape", source_,
          text_.substr(0, 80));
  }
  void SkipSpace() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool Accept(char c) {
    SkipSpace();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void Expect(char c) {
    if (!Accept(c)) Refuse();
  }
  std::string String() {
    SkipSpace();
    if (at_ >= text_.size()) Refuse();
    const char quote = text_[at_];
    if (quote == '[')
      Throw(ErrorKind::kUnsupported, "{}: is an array of records; arrays of numbers are supported",
            source_);
    if (quote != '\'' && quote != '"') Refuse();
    const size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) Refuse();
    const std::string value(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return value;
  }
  bool Bool() {
    SkipSpace();
    for (const std::string_view word : {"True", "False"})
      if (text_.substr(at_).starts_with(word)) {
        at_ += word.size();
        return word == "True";
      }
    Refuse();
  }
  std::vector<int64_t> Tuple() {
    std::vector<int64_t> shape;
    Expect('(');
    while (!Accept(')')) {
      SkipSpace();
      int64_t extent = -1;
      const auto [end, error] =
          std::from_chars(text_.data() + at_, text_.data() + text_.size(), extent);
      if (error != std::errc() || extent < 0 || shape.size() == kMaxRank) Refuse();
      at_ = static_cast<size_t>(end - text_.data());
      if (at_ < text_.size() && text_[at_] == 'L') ++at_;  // of Python 2
      shape.push_back(extent);
      if (!Accept(',')) {
        Expect(')');
        break;
      }
    }
    return shape;
  }

  std::string_view text_;
  const std::string& source_;
  size_t at_ = 0;
  int keys_ = 0;
};

// Where NumPy's type is one of ours. The byte order is that of the file, see ElementType.
std::optional<DType> TypeOf(std::string_view code) {
  static constexpr std::pair<std::string_view, DType> kTypes[] = {
      {"i1", DType::kI8},  {"u1", DType::kU8},  {"b1", DType::kU8},  {"i2", DType::kI16},
      {"i4", DType::kI32}, {"u4", DType::kU32}, {"i8", DType::kI64}, {"u8", DType::kU64},
      {"f2", DType::kF16}, {"f4", DType::kF32}, {"f8", DType::kF64}};
  for (const auto& [name, type] : kTypes)
    if (name == code) return type;
  return std::nullopt;
}

DType ElementType(const std::string& descr, const std::string& source) {
  const std::optional<DType> type = descr.size() == 3 ? TypeOf(descr.substr(1)) : std::nullopt;
  const char order = descr.empty() ? ' ' : descr[0];
  const bool is_native = order == '<' || order == '=' || (type && DTypeBytes(*type) == 1);
  if (!type || !is_native)
    Throw(ErrorKind::kUnsupported,
          "{}: holds elements of type \"{}\"; little-endian integers of 1 to 8 bytes (unsigned of "
          "1, 4, 8), floats and booleans are supported",
          source, descr.substr(0, 40));
  return *type;
}

// Column-major to row-major.
void Transpose(NumberArray& array) {
  std::vector<double> values(array.values.size());
  std::vector<int64_t> index(array.rank(), 0);
  for (double& value : values) {
    int64_t at = 0;
    for (size_t d = array.rank(); d-- > 0;) at = at * array.shape[d] + index[d];
    value = array.values[static_cast<size_t>(at)];
    for (size_t d = array.rank(); d-- > 0;) {
      if (++index[d] < array.shape[d]) break;
      index[d] = 0;
    }
  }
  array.values = std::move(values);
}

}  // namespace

NumberArray ParseNpy(std::span<const std::byte> bytes, const std::string& source) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  constexpr size_t kVersionAt = 6;
  if (!text.starts_with(kMagic) || text.size() < 12)
    Throw(ErrorKind::kCorrupt, "{}: is no .npy file", source);
  const auto version = static_cast<uint8_t>(text[kVersionAt]);
  size_t header_bytes = static_cast<uint8_t>(text[8]) + size_t{256} * static_cast<uint8_t>(text[9]);
  size_t header_at = 10;
  if (version >= 2) {
    header_bytes += (size_t{static_cast<uint8_t>(text[10])} << 16) +
                    (size_t{static_cast<uint8_t>(text[11])} << 24);
    header_at = 12;
  }
  if (version < 1 || version > 3 || header_bytes > text.size() - header_at)
    Throw(ErrorKind::kCorrupt, "{}: the .npy header of version {} lies beyond the file", source,
          version);
  const Header header = HeaderParser(text.substr(header_at, header_bytes), source).Run();
  if (header.descr.ends_with("O"))
    Throw(ErrorKind::kUnsupported,
          "{}: holds Python objects (pickled code), which are never read; save an array of numbers",
          source);
  const DType type = ElementType(header.descr, source);
  const int64_t elements = CheckedElements(header.shape, source);
  const std::span<const std::byte> data = bytes.subspan(header_at + header_bytes);
  const int64_t expected = elements * DTypeBytes(type);
  if (std::ssize(data) != expected)
    Throw(ErrorKind::kCorrupt, "{}: has {} bytes of data; {} of {} need {}", source, data.size(),
          ShapeText(header.shape), header.descr, expected);
  NumberArray array = ArrayOfTensor(TensorView(type, Shape{elements}, data.data()), source);
  array.shape = header.shape;
  if (header.is_fortran) Transpose(array);
  return array;
}

NumberArray ReadNpy(const std::string& path) { return ParseNpy(MappedFile(path).bytes(), path); }

std::map<std::string, NumberArray> ParseNpz(std::span<const std::byte> bytes,
                                            const std::string& source) {
  constexpr std::string_view kSuffix = ".npy";
  const ZipFile zip(bytes, source);
  std::map<std::string, NumberArray> arrays;
  for (const auto& [name, member] : zip.members()) {
    if (!name.ends_with(kSuffix)) continue;
    std::string buffer;
    arrays[name.substr(0, name.size() - kSuffix.size())] =
        ParseNpy(zip.Read(name, buffer), source + ": " + name);
  }
  return arrays;
}

std::string FormatNpy(const NumberArray& array) {
  static_assert(std::endian::native == std::endian::little);
  constexpr double kExact = 9007199254740992;  // 2^53
  constexpr size_t kAlignment = 64;
  const bool integers = std::all_of(array.values.begin(), array.values.end(), [&](double x) {
    return x == std::floor(x) && std::abs(x) <= kExact;
  });
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}",
                                   integers ? "<i8" : "<f8", fmt::join(array.shape, ", "),
                                   array.rank() == 1 ? "," : "");
  constexpr size_t kPreamble = 10;
  header.append((2 * kAlignment - 1 - (kPreamble + header.size()) % kAlignment) % kAlignment, ' ');
  header += '\n';
  std::string text(kMagic);
  text += '\x01';
  text += '\0';
  text += static_cast<char>(header.size() & 0xff);
  text += static_cast<char>(header.size() >> 8);
  text += header;
  for (const double value : array.values) {
    const auto integer = static_cast<int64_t>(integers ? value : 0);
    char raw[8];
    std::memcpy(raw, integers ? static_cast<const void*>(&integer) : &value, sizeof(raw));
    text.append(raw, sizeof(raw));
  }
  return text;
}

}  // namespace wideload::formats
