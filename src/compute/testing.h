// Random inputs for tests and benchmarks of ops. Values depend on the seed alone. Not thread-safe.
#pragma once

#include <cstdint>
#include <random>

#include "compute/exec.h"
#include "tensor/buffer.h"
#include "tensor/tensor_view.h"

namespace wideload::compute {

// A dense tensor that owns its memory.
class OwnedTensor {
 public:
  OwnedTensor(DType dtype, const Shape& shape)
      : buffer_(dtype, shape), view_(buffer_.View(dtype, shape)) {}
  const TensorView& view() const { return view_; }
  float at(int64_t i) const { return LoadFloat(view_.dtype(), view_.raw(), i); }
  int64_t size() const { return view_.shape().num_elements(); }

 private:
  Buffer buffer_;
  TensorView view_;
};

// Element `i` of a dense tensor = value, rounded to its dtype (F32 or BF16).
inline void SetElement(const TensorView& view, int64_t i, float value) {
  if (view.dtype() == DType::kBF16) {
    view.data<BF16>()[i] = ToBF16(value);
  } else {
    view.data<float>()[i] = value;
  }
}

// Normally distributed values of standard deviation `spread`.
inline OwnedTensor RandomTensor(DType dtype, const Shape& shape, uint32_t seed,
                                float spread = 1.0F) {
  OwnedTensor tensor(dtype, shape);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, spread);
  for (int64_t i = 0; i < tensor.size(); ++i) SetElement(tensor.view(), i, normal(random));
  return tensor;
}

}  // namespace wideload::compute
