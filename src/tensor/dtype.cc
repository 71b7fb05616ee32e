#include "tensor/dtype.h"

#include <array>
#include <cmath>
#include <cstring>

#include "base/error.h"

namespace wideload {
namespace {

struct Entry {
  DType dtype;
  std::string_view name;
  int64_t bytes;
};

constexpr std::array<Entry, 15> kTypes = {{{DType::kF32, "F32", 4},
                                           {DType::kF64, "F64", 8},
                                           {DType::kBF16, "BF16", 2},
                                           {DType::kF16, "F16", 2},
                                           {DType::kF8E4M3, "F8_E4M3", 1},
                                           {DType::kF8E5M2, "F8_E5M2", 1},
                                           {DType::kF8E8M0, "F8_E8M0", 1},
                                           {DType::kI8, "I8", 1},
                                           {DType::kU8, "U8", 1},
                                           {DType::kI16, "I16", 2},
                                           {DType::kI32, "I32", 4},
                                           {DType::kI64, "I64", 8},
                                           {DType::kU32, "U32", 4},
                                           {DType::kU64, "U64", 8},
                                           {DType::kBool, "BOOL", 1}}};

template <class T>
T LoadAs(const void* data, int64_t index) {
  T value;
  std::memcpy(&value, static_cast<const char*>(data) + index * static_cast<int64_t>(sizeof(T)),
              sizeof(T));
  return value;
}

// 1 sign, 4 exponent (bias 7), 3 mantissa bits; no infinities, 0x7f and 0xff are NaN.
float F8E4M3ToFloat(uint8_t bits) {
  const int exponent = (bits >> 3) & 15;
  const int mantissa = bits & 7;
  if ((bits & 0x7f) == 0x7f) return std::nanf("");
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(mantissa), -9)
                              : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return (bits & 0x80) != 0 ? -magnitude : magnitude;
}

}  // namespace

int64_t DTypeBytes(DType dtype) { return kTypes[static_cast<size_t>(dtype)].bytes; }

std::string_view DTypeName(DType dtype) { return kTypes[static_cast<size_t>(dtype)].name; }

DType ParseDType(std::string_view name, std::string_view where) {
  for (const Entry& entry : kTypes)
    if (entry.name == name) return entry.dtype;
  Throw(ErrorKind::kUnsupported,
        "{}: dtype is {}; known: F32 F64 BF16 F16 F8_E4M3 I8 U8 I16 I32 I64 U32 U64 BOOL", where,
        name);
}

float HalfToFloat(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000U) << 16;
  const uint32_t exponent = (bits >> 10) & 31U;
  const uint32_t mantissa = bits & 0x3ffU;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000U | (mantissa << 13));
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 112U) << 23) | (mantissa << 13));
  const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
  return sign != 0 ? -magnitude : magnitude;
}

float LoadFloat(DType dtype, const void* data, int64_t index) {
  switch (dtype) {
    case DType::kF32:
      return LoadAs<float>(data, index);
    case DType::kF64:
      return static_cast<float>(LoadAs<double>(data, index));
    case DType::kBF16:
      return ToFloat(BF16{LoadAs<uint16_t>(data, index)});
    case DType::kF16:
      return HalfToFloat(LoadAs<uint16_t>(data, index));
    case DType::kF8E4M3:
      return F8E4M3ToFloat(LoadAs<uint8_t>(data, index));
    default:
      break;
  }
  Fatal(__FILE__, __LINE__, fmt::format("LoadFloat of {}", DTypeName(dtype)));
}

}  // namespace wideload
