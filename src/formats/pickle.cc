#include "formats/pickle.h"

#include <fmt/ranges.h>

#include <cstring>
#include <map>

#include "base/error.h"
#include "formats/pickle_stack.h"

namespace wideload::formats {
namespace {

using List = PickledValue::List;
using Dict = PickledValue::Dict;
using Global = PickledValue::Global;
using Storage = PickledValue::Storage;

constexpr std::string_view kStorageSuffix = "Storage";

bool IsAllowed(std::string_view module, std::string_view name) {
  if (module == "collections") return name == "OrderedDict";
  if (module == "torch._utils") return name == "_rebuild_tensor_v2" || name == "_rebuild_parameter";
  if (module != "torch" || !name.ends_with(kStorageSuffix)) return false;
  static constexpr std::string_view kTypes[] = {"Double", "Float", "Half", "BFloat16", "Long",
                                                "Int",    "Short", "Char", "Byte",     "Bool"};
  for (const std::string_view type : kTypes)
    if (name.substr(0, name.size() - kStorageSuffix.size()) == type) return true;
  return false;
}

class Machine : private PickleStack {
 public:
  Machine(std::span<const std::byte> bytes, const std::string& source)
      : PickleStack(bytes, source) {}

  Pickle Run() {
    while (true) {
      opcode_at_ = at_;
      const auto opcode = Take<uint8_t>();
      if (opcode == '.') break;
      if (!Number(opcode) && !Text(opcode) && !Memo(opcode) && !Container(opcode) &&
          !Object(opcode))
        Throw(
            ErrorKind::kUnsupported,
            "{}: offset {}: opcode 0x{:02x} is not allowed here; numbers, texts, plain containers "
            "and tensors are read, and nothing is executed",
            source_, opcode_at_, opcode);
    }
    if (stack_.size() != 1 || !marks_.empty()) Corrupt("the pickle does not end with one value");
    return {std::move(values_), stack_.back()};
  }

 private:
  bool Number(uint8_t opcode) {
    switch (opcode) {
      case 'N':
        Push(std::monostate());
        return true;
      case 0x88:
        Push(true);
        return true;
      case 0x89:
        Push(false);
        return true;
      case 'K':
        Push(int64_t{Take<uint8_t>()});
        return true;
      case 'M':
        Push(int64_t{Take<uint16_t>()});
        return true;
      case 'J':
        Push(int64_t{Take<int32_t>()});
        return true;
      case 0x8a:
        Push(LongInteger(TakeBytes(Take<uint8_t>())));
        return true;
      case 'G':
        Push(BigEndianDouble());
        return true;
      default:
        return false;
    }
  }

  int64_t LongInteger(std::string_view bytes) const {
    if (bytes.size() > 8) Corrupt("an integer of more than 8 bytes");
    uint64_t value = !bytes.empty() && (bytes.back() & 0x80) != 0 ? ~uint64_t{0} : 0;
    std::memcpy(&value, bytes.data(), bytes.size());
    return static_cast<int64_t>(value);
  }

  double BigEndianDouble() {
    uint64_t bits = 0;
    for (const char byte : TakeBytes(8)) bits = bits << 8 | static_cast<uint8_t>(byte);
    double value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  }

  bool Text(uint8_t opcode) {
    uint64_t size = 0;
    switch (opcode) {
      case 'X':
        size = Take<uint32_t>();
        break;
      case 0x8c:
        size = Take<uint8_t>();
        break;
      case 0x8d:
        size = Take<uint64_t>();
        break;
      default:
        return false;
    }
    Push(std::string(TakeBytes(size)));
    return true;
  }

  // Protocol, frames and the memo.
  bool Memo(uint8_t opcode) {
    switch (opcode) {
      case 0x80: {
        const auto protocol = Take<uint8_t>();
        if (protocol < 2 || protocol > 5) Corrupt("a protocol that is not one of 2 to 5");
        return true;
      }
      case 0x95:
        Take<uint64_t>();  // a frame's length; its opcodes follow as if it were not there
        return true;
      case 'q':
        memo_[Take<uint8_t>()] = TopIndex();
        return true;
      case 'r':
        memo_[Take<uint32_t>()] = TopIndex();
        return true;
      case 0x94:
        memo_[static_cast<uint32_t>(memo_.size())] = TopIndex();
        return true;
      case 'h':
        Recall(Take<uint8_t>());
        return true;
      case 'j':
        Recall(Take<uint32_t>());
        return true;
      default:
        return false;
    }
  }
  void Recall(uint32_t key) {
    const auto it = memo_.find(key);
    if (it == memo_.end()) Corrupt("recalls a value that was not stored");
    stack_.push_back(it->second);
  }

  bool Container(uint8_t opcode) {
    switch (opcode) {
      case '(':
        marks_.push_back(stack_.size());
        return true;
      case '}':
        Push(Dict());
        return true;
      case ']':
        Push(List());
        return true;
      case ')':
        Push(List{.items = {}, .is_tuple = true});
        return true;
      case 't':
        Push(List{.items = PopMark(), .is_tuple = true});
        return true;
      case 0x85:
      case 0x86:
      case 0x87:
        Push(List{.items = PopLast(opcode - size_t{0x84}), .is_tuple = true});
        return true;
      case 'a':
        Append(PopLast(1));
        return true;
      case 'e':
        Append(PopMark());
        return true;
      case 's':
        SetItems(PopLast(2));
        return true;
      case 'u':
        SetItems(PopMark());
        return true;
      default:
        return false;
    }
  }
  std::vector<uint32_t> PopLast(size_t count) {
    std::vector<uint32_t> items(count);
    for (size_t i = count; i-- > 0;) items[i] = Pop();
    return items;
  }
  void Append(const std::vector<uint32_t>& items) {
    List& list = Top<List>("appends to what is no list");
    if (list.is_tuple) Corrupt("appends to a tuple");
    list.items.insert(list.items.end(), items.begin(), items.end());
  }
  void SetItems(const std::vector<uint32_t>& items) {
    if (items.size() % 2 != 0) Corrupt("a key without a value");
    Dict& dict = Top<Dict>("sets an item of what is no dictionary");
    for (size_t i = 0; i < items.size(); i += 2) dict.items.emplace_back(items[i], items[i + 1]);
  }

  // Names, tensors and their storages.
  bool Object(uint8_t opcode) {
    switch (opcode) {
      case 'c': {
        const std::string_view module = TakeLine();
        PushGlobal(module, TakeLine());
        return true;
      }
      case 0x93: {
        const std::vector<uint32_t> names = PopLast(2);
        PushGlobal(std::string(At<std::string>(names[0], "a module that is no text")),
                   std::string(At<std::string>(names[1], "a name that is no text")));
        return true;
      }
      case 'Q':
        PushStorage(Pop());
        return true;
      case 'R':
        Rebuild();
        return true;
      default:
        return false;
    }
  }

  void PushGlobal(std::string_view module, std::string_view name) {
    if (!IsAllowed(module, name))
      Throw(
          ErrorKind::kUnsupported,
          "{}: offset {}: names {}.{}, which is not allowed here; tensors and plain containers are "
          "read, and nothing is executed",
          source_, opcode_at_, module.substr(0, 80), name.substr(0, 80));
    Push(Global{std::string(module), std::string(name)});
  }

  // ("storage", torch.XStorage, key, device, elements)
  void PushStorage(uint32_t id) {
    constexpr std::string_view kWrong = "a persistent id that is no storage of a tensor";
    const std::vector<uint32_t> parts = At<List>(id, kWrong).items;
    if (parts.size() != 5 || At<std::string>(parts[0], kWrong) != "storage") Corrupt(kWrong);
    const Global& type = At<Global>(parts[1], kWrong);
    if (!type.name.ends_with(kStorageSuffix)) Corrupt(kWrong);
    Push(Storage{type.name, At<std::string>(parts[2], kWrong), At<int64_t>(parts[4], kWrong)});
  }

  void Rebuild() {
    const std::vector<uint32_t> arguments = At<List>(Pop(), "calls without arguments").items;
    const Global called = At<Global>(Pop(), "calls what is no allowed name");
    if (called.name == "OrderedDict" && arguments.empty()) return Push(Dict());
    if (called.name == "_rebuild_tensor_v2" && arguments.size() >= 4) return PushTensor(arguments);
    if (called.name == "_rebuild_parameter" && !arguments.empty()) {
      At<PickledTensor>(arguments[0], "a parameter that is no tensor");
      return stack_.push_back(arguments[0]);
    }
    Throw(ErrorKind::kUnsupported,
          "{}: offset {}: calls {}.{} with {} arguments; that is not allowed", source_, opcode_at_,
          called.module, called.name, arguments.size());
  }

  void PushTensor(const std::vector<uint32_t>& arguments) {
    const Storage& storage = At<Storage>(arguments[0], "a tensor without a storage");
    PickledTensor tensor{.storage_type = storage.type,
                         .storage_key = storage.key,
                         .storage_elements = storage.elements,
                         .offset = At<int64_t>(arguments[1], "a tensor without an offset"),
                         .shape = Integers(arguments[2]),
                         .strides = Integers(arguments[3])};
    if (tensor.shape.size() != tensor.strides.size())
      Corrupt("a tensor of unlike shape and strides");
    Push(std::move(tensor));
  }
  std::vector<int64_t> Integers(uint32_t tuple) const {
    std::vector<int64_t> values;
    for (const uint32_t item : At<List>(tuple, "a shape that is no tuple").items)
      values.push_back(At<int64_t>(item, "a shape that holds no integers"));
    return values;
  }

  std::map<uint32_t, uint32_t> memo_;
};

}  // namespace

Pickle ParsePickle(std::span<const std::byte> bytes, const std::string& source) {
  return Machine(bytes, source).Run();
}

}  // namespace wideload::formats
