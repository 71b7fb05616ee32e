#include "compute/weight_format.h"

#include <array>

#include "compute/kernels.h"

namespace wideload::compute {
namespace {

constexpr std::array<std::string_view, kNumWeightFormats> kFormatNames = {"fp32", "bf16", "fp8",
                                                                          "int4", "mxfp4"};

}  // namespace

std::string_view WeightFormatName(WeightFormat format) {
  return kFormatNames[static_cast<size_t>(format)];
}

int64_t ScaleBlockK(WeightFormat format) {
  if (format == WeightFormat::kFp8) return kFp8BlockK;
  return IsBlockScaled(format) ? kFourBitBlockK : 1;
}

WeightFormat PlainFormat(KernelSet kernels) {
  return kernels == KernelSet::kReference ? WeightFormat::kF32 : WeightFormat::kBF16;
}

DType InputDType(KernelSet kernels, WeightFormat format) {
  return format == WeightFormat::kF32 ? DType::kF32 : PrecisionOf(kernels).activations;
}

int64_t GroupBytes(WeightFormat format, int64_t k) {
  const int64_t padded = CeilDiv(k, kTileK) * kTileK;
  switch (format) {
    case WeightFormat::kF32:
      break;
    case WeightFormat::kBF16:
      return padded * kGroupColumns * 2;
    case WeightFormat::kFp8:
      return CeilDiv(k, kFp8BlockK) * kScaleLineBytes + padded * kGroupColumns;
    case WeightFormat::kInt4:
      return CeilDiv(k, kInt4ScaleLineK) * kScaleLineBytes + padded * kGroupColumns / 2;
    case WeightFormat::kMxfp4:
      return CeilDiv(k, kMxfp4ScaleLineK) * kScaleLineBytes + padded * kGroupColumns / 2;
  }
  return k * kGroupColumns * 4;
}

}  // namespace wideload::compute
