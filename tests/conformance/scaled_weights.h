// Random weights in every format for the op suites, as a checkpoint would store them.
#pragma once

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "compute/testing.h"

namespace wideload::compute {

// Tensors of a weight [n, k] and the view that packing takes.
struct StoredWeight {
  OwnedTensor values;
  OwnedTensor scales;
  WeightSource source;
};

inline OwnedTensor RandomBytes(DType dtype, const Shape& shape, uint32_t seed) {
  OwnedTensor tensor(dtype, shape);
  std::mt19937 random(seed);
  auto* bytes = static_cast<uint8_t*>(tensor.view().raw_mutable());
  for (int64_t i = 0; i < tensor.view().num_bytes(); ++i) {
    bytes[i] = static_cast<uint8_t>(random());
    // 0x7f and 0xff would be NaN.
    if (dtype == DType::kF8E4M3 && (bytes[i] & 0x7f) == 0x7f) bytes[i] = 0x38;
  }
  return tensor;
}

// Weights of size about 1. `format` kF32 and kBF16 are plain; k of the 4-bit formats is a multiple
// of 32.
inline StoredWeight RandomWeight(WeightFormat format, int64_t n, int64_t k, uint32_t seed) {
  const auto scales = [&](DType dtype, const Shape& shape, float size) {
    OwnedTensor tensor = RandomTensor(dtype, shape, seed + 1, size);
    for (int64_t i = 0; i < tensor.size(); ++i) {
      SetElement(tensor.view(), i, 0.1F * size + std::abs(tensor.at(i)));
    }
    return tensor;
  };
  switch (format) {
    case WeightFormat::kFp8: {
      OwnedTensor values = RandomBytes(DType::kF8E4M3, {n, k}, seed);
      OwnedTensor scale = scales(DType::kF32, {(n + 127) / 128, (k + 127) / 128}, 1.0F / 64);
      WeightSource source = WeightSource::Fp8("fp8", values.view(), scale.view());
      return {std::move(values), std::move(scale), std::move(source)};
    }
    case WeightFormat::kInt4: {
      OwnedTensor values = RandomBytes(DType::kI32, {n, k / 8}, seed);
      OwnedTensor scale = scales(DType::kBF16, {n, k / 32}, 0.25F);
      WeightSource source = WeightSource::Int4("int4", values.view(), scale.view());
      return {std::move(values), std::move(scale), std::move(source)};
    }
    case WeightFormat::kMxfp4: {
      OwnedTensor values = RandomBytes(DType::kU8, {n, k / 32, 16}, seed);
      OwnedTensor scale = RandomBytes(DType::kU8, {n, k / 32}, seed + 1);
      auto* bytes = static_cast<uint8_t*>(scale.view().raw_mutable());
      for (int64_t i = 0; i < scale.size(); ++i)
        bytes[i] = static_cast<uint8_t>(122 + bytes[i] % 8);
      WeightSource source = WeightSource::Mxfp4("mxfp4", values.view(), scale.view());
      return {std::move(values), std::move(scale), std::move(source)};
    }
    case WeightFormat::kF32:
    case WeightFormat::kBF16:
      break;
  }
  OwnedTensor values =
      RandomTensor(format == WeightFormat::kF32 ? DType::kF32 : DType::kBF16, {n, k}, seed);
  WeightSource source = WeightSource::Plain("plain", values.view());
  return {std::move(values), OwnedTensor(DType::kF32, {1}), std::move(source)};
}

inline PackedMatrix PackStored(KernelSet kernels, WeightFormat format, const WeightSource& source,
                               ThreadPool& pool) {
  const PackedShape shape{.kernels = kernels,
                          .format = format,
                          .n = source.n(),
                          .k = source.k(),
                          .bias = source.has_bias()};
  return PackedMatrix::Pack(shape, {&source, 1}, pool, Buffer(shape.num_bytes(), TestMemory()));
}

}  // namespace wideload::compute
