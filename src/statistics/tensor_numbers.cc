#include "statistics/tensor_numbers.h"

#include <cstring>
#include <limits>

#include "base/error.h"

namespace wideload::statistics {
namespace {

template <class T>
T ElementAt(const TensorView& view, int64_t index) {
  T value;
  std::memcpy(&value, static_cast<const std::byte*>(view.raw()) + index * int64_t{sizeof(T)},
              sizeof(T));
  return value;
}

[[noreturn]] void RefuseType(const TensorView& view, const std::string& where,
                             const char* allowed) {
  Throw(ErrorKind::kInvalid, "{} is {}; it must hold {}", where, DTypeName(view.dtype()), allowed);
}

}  // namespace

int64_t IntegerAt(const TensorView& view, int64_t index, const std::string& where) {
  switch (view.dtype()) {
    case DType::kI8:
      return ElementAt<int8_t>(view, index);
    case DType::kU8:
      return ElementAt<uint8_t>(view, index);
    case DType::kI16:
      return ElementAt<int16_t>(view, index);
    case DType::kI32:
      return ElementAt<int32_t>(view, index);
    case DType::kU32:
      return ElementAt<uint32_t>(view, index);
    case DType::kI64:
      return ElementAt<int64_t>(view, index);
    case DType::kU64: {
      const auto value = ElementAt<uint64_t>(view, index);
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        Throw(ErrorKind::kInvalid, "{} holds {}; at most 2^63 - 1 is allowed", where, value);
      return static_cast<int64_t>(value);
    }
    default:
      RefuseType(view, where, "integers");
  }
}

double NumberAt(const TensorView& view, int64_t index, const std::string& where) {
  switch (view.dtype()) {
    case DType::kF64:
      return ElementAt<double>(view, index);
    case DType::kF32:
      return double{ElementAt<float>(view, index)};
    case DType::kBF16:
    case DType::kF16: {
      const auto bits = ElementAt<uint16_t>(view, index);
      return double{LoadFloat(view.dtype(), &bits, 0)};
    }
    case DType::kF8E4M3: {
      const auto bits = ElementAt<uint8_t>(view, index);
      return double{LoadFloat(view.dtype(), &bits, 0)};
    }
    case DType::kBool:
      RefuseType(view, where, "numbers");
    default:
      return static_cast<double>(IntegerAt(view, index, where));
  }
}

}  // namespace wideload::statistics
