// Random inputs for tests and benchmarks of ops. Values depend on the seed alone. Not thread-safe.
#pragma once

#include <cstdint>
#include <random>

#include "compute/exec.h"
#include "compute/matrix.h"
#include "tensor/buffer.h"
#include "tensor/tensor_view.h"

namespace wideload::compute {

// Where tensors and packed weights of tests lie: null for the host, or memory that it and the
// device under test reach. Set before the first of them is made.
inline MemorySource*& TestMemory() {
  static MemorySource* source = nullptr;
  return source;
}

// A dense tensor that owns its memory.
class OwnedTensor {
 public:
  OwnedTensor(DType dtype, const Shape& shape)
      : buffer_(dtype, shape, TestMemory()), view_(buffer_.View(dtype, shape)) {}
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

// w [n, k] packed plain, in what the kernel set keeps plain weights in unless `format` says so.
inline PackedMatrix PackPlain(KernelSet kernels, WeightFormat format, const OwnedTensor& w,
                              ThreadPool& pool) {
  const PackedShape shape{
      .kernels = kernels, .format = format, .n = w.view().dim(0), .k = w.view().dim(1)};
  const WeightSource source = WeightSource::Plain("weight", w.view());
  return PackedMatrix::Pack(shape, {&source, 1}, pool, Buffer(shape.num_bytes(), TestMemory()));
}
inline PackedMatrix PackPlain(KernelSet kernels, const OwnedTensor& w, ThreadPool& pool) {
  return PackPlain(kernels, PlainFormat(kernels), w, pool);
}

}  // namespace wideload::compute
