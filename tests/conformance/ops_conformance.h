// What the op suites share: one run per kernel set this machine can run, inputs that every set
// holds exactly, and comparison by bits. Not thread-safe.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "compute/ops.h"
#include "compute/testing.h"

namespace wideload::compute {

// Sums of up to some hundred products of size about 1 in fp32, in another order: relative to the
// size of the sums, 331 * 2^-24 with room.
inline constexpr float kSumTolerance = 5e-5F;
// One rounding to bf16 (2^-9 of the value), seen from either side of a rounding boundary.
inline constexpr float kBf16Tolerance = 1.0F / 128;

// Where ops of a set on a device go: a stream that waits after each of them. In programs that test
// such sets.
void PutOnDevice(Exec& exec);

// Why there is no device for the sets of this program, so that its tests are skipped; empty when
// there is one, or needs to be none.
inline std::string& WhyNoDevice() {
  static std::string why;
  return why;
}

class OpsConformance : public testing::TestWithParam<KernelSet> {
 protected:
  void SetUp() override {
    if (!WhyNoDevice().empty()) GTEST_SKIP() << "not run on a GPU: " << WhyNoDevice();
  }
  KernelSet kernels() const { return GetParam(); }
  DType compute_dtype() const { return PrecisionOf(kernels()).activations; }
  // Tolerance of an op whose output has the compute dtype.
  float output_tolerance() const {
    return compute_dtype() == DType::kF32 ? kSumTolerance : kBf16Tolerance;
  }
  // Whether the set has products of weights in `format`.
  bool Multiplies(WeightFormat format) const {
    return !IsOnDevice(kernels()) || !IsBlockScaled(format);
  }
  Exec With(int threads) const {
    Exec exec{.kernels = kernels(), .pool = pools_[static_cast<size_t>(threads - 1)].get()};
    if (IsOnDevice(kernels())) PutOnDevice(exec);
    return exec;
  }
  // a * b + c as the set has it: the reference rounds the product.
  float MultiplyAdd(float a, float b, float c) const {
    return kernels() == KernelSet::kReference ? a * b + c : std::fma(a, b, c);
  }
  Exec Reference() const { return {.kernels = KernelSet::kReference, .pool = pools_[0].get()}; }
  ThreadPool& pool() const { return *pools_[0]; }

 private:
  std::vector<std::unique_ptr<ThreadPool>> pools_ = [] {
    std::vector<std::unique_ptr<ThreadPool>> pools;
    for (int i = 1; i <= 3; ++i) pools.push_back(std::make_unique<ThreadPool>("test", i));
    return pools;
  }();
};

// The kernel sets of this program.
std::vector<KernelSet> KernelSetsUnderTest();

inline std::string KernelSetOf(const testing::TestParamInfo<KernelSet>& info) {
  return std::string(KernelSetName(info.param));
}

// Random values that bf16 holds exactly, stored as `dtype`.
inline OwnedTensor RandomBf16Values(DType dtype, const Shape& shape, uint32_t seed,
                                    float spread = 1.0F) {
  const OwnedTensor source = RandomTensor(DType::kBF16, shape, seed, spread);
  OwnedTensor tensor(dtype, shape);
  for (int64_t i = 0; i < tensor.size(); ++i) SetElement(tensor.view(), i, source.at(i));
  return tensor;
}

inline OwnedTensor CopyOf(const TensorView& view, DType dtype) {
  OwnedTensor copy(dtype, view.shape());
  const int64_t width = view.shape().num_elements() / view.dim(0);
  for (int64_t r = 0; r < view.dim(0); ++r) {
    for (int64_t i = 0; i < width; ++i) {
      SetElement(copy.view(), r * width + i,
                 LoadFloat(view.dtype(), view.raw(), r * view.row_stride() + i));
    }
  }
  return copy;
}

// The rows of a dense tensor with `gap` elements between them.
class StridedTensor {
 public:
  StridedTensor(const OwnedTensor& dense, int64_t gap)
      : buffer_(dense.view().dtype(), {dense.view().dim(0), dense.view().dim(1) + gap},
                TestMemory()),
        view_(dense.view().dtype(), dense.view().shape(), buffer_.data(),
              dense.view().dim(1) + gap) {
    const auto row_bytes =
        static_cast<size_t>(dense.view().dim(1) * DTypeBytes(dense.view().dtype()));
    for (int64_t r = 0; r < view_.dim(0); ++r) {
      std::memcpy(buffer_.data() + r * view_.row_bytes(),
                  static_cast<const std::byte*>(dense.view().raw()) + r * dense.view().row_bytes(),
                  row_bytes);
    }
  }
  const TensorView& view() const { return view_; }

 private:
  Buffer buffer_;
  TensorView view_;
};

// The same bits in every row, strides aside.
inline testing::AssertionResult SameBits(const TensorView& a, const TensorView& b) {
  if (a.dtype() != b.dtype() || !(a.shape() == b.shape())) {
    return testing::AssertionFailure() << a.shape().ToString() << " and " << b.shape().ToString();
  }
  const int64_t width = a.dim(0) > 0 ? a.shape().num_elements() / a.dim(0) : 0;
  const auto row_bytes = static_cast<size_t>(width * DTypeBytes(a.dtype()));
  for (int64_t r = 0; r < a.dim(0); ++r) {
    const auto* a_row = static_cast<const std::byte*>(a.raw()) + r * a.row_bytes();
    const auto* b_row = static_cast<const std::byte*>(b.raw()) + r * b.row_bytes();
    if (std::memcmp(a_row, b_row, row_bytes) != 0) {
      return testing::AssertionFailure() << "row " << r << " differs";
    }
  }
  return testing::AssertionSuccess();
}

// |actual - expected| <= tolerance * max(|expected|, scale) for every element.
inline testing::AssertionResult IsNear(const OwnedTensor& actual, const OwnedTensor& expected,
                                       float tolerance, float scale = 1.0F) {
  for (int64_t i = 0; i < expected.size(); ++i) {
    const float allowed = tolerance * std::max(std::abs(expected.at(i)), scale);
    if (!(std::abs(actual.at(i) - expected.at(i)) <= allowed)) {
      return testing::AssertionFailure()
             << "element " << i << " is " << actual.at(i) << ", expected " << expected.at(i);
    }
  }
  return testing::AssertionSuccess();
}

struct Batches {
  int64_t rows = 0;      // of each
  int64_t distance = 0;  // from one to the next
};
// Whether these rows of y = x W^T have the bits that they have in `all` of it.
inline testing::AssertionResult BatchesHaveTheBits(const Exec& exec, const TensorView& x,
                                                   const PackedMatrix& w, const TensorView& all,
                                                   const Batches& batches) {
  const OwnedTensor some(DType::kF32, {batches.rows, w.n()});
  for (int64_t first = 0; first + batches.rows <= x.dim(0); first += batches.distance) {
    MatMul(exec, x.Rows(first, batches.rows), w, some.view());
    const testing::AssertionResult same = SameBits(some.view(), all.Rows(first, batches.rows));
    if (!same) {
      return testing::AssertionFailure()
             << batches.rows << " rows from " << first << ": " << same.message();
    }
  }
  return testing::AssertionSuccess();
}

inline std::vector<const std::byte*> RowPointers(const TensorView& x) {
  std::vector<const std::byte*> rows;
  for (int64_t r = 0; r < x.dim(0); ++r) {
    rows.push_back(static_cast<const std::byte*>(x.raw()) + r * x.row_bytes());
  }
  return rows;
}
inline std::vector<std::byte*> MutableRowPointers(const TensorView& x) {
  std::vector<std::byte*> rows;
  for (int64_t r = 0; r < x.dim(0); ++r) {
    rows.push_back(static_cast<std::byte*>(x.raw_mutable()) + r * x.row_bytes());
  }
  return rows;
}

}  // namespace wideload::compute
