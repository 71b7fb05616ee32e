// Element types and the scalar conversions between them. Plain values.
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

namespace wideload {

enum class DType : uint8_t {
  kF32,
  kF64,
  kBF16,
  kF16,
  kF8E4M3,
  kF8E5M2,  // this one and the next are only read as bytes
  kF8E8M0,
  kI8,
  kU8,
  kI16,
  kI32,
  kI64,
  kU32,
  kU64,
  kBool
};

// Bytes of one element.
int64_t DTypeBytes(DType dtype);
// The safetensors name: "F32", "BF16", "F8_E4M3", ...
std::string_view DTypeName(DType dtype);
// Errors: kUnsupported naming `where` and the text when it is no name above.
DType ParseDType(std::string_view name, std::string_view where);

// bf16 stored as its 16 bits.
struct BF16 {
  uint16_t bits = 0;
};

// Exact.
inline float ToFloat(BF16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

// Round to nearest even; NaN stays NaN.
inline BF16 ToBF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return {static_cast<uint16_t>((bits >> 16) | 0x40U)};
  return {static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16)};
}

// IEEE half, exact.
float HalfToFloat(uint16_t bits);

// Element `index` of an array of any floating type above (F32, F64, BF16, F16, F8_E4M3) as fp32.
float LoadFloat(DType dtype, const void* data, int64_t index);

}  // namespace wideload
