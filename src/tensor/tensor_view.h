// A shape and a view of memory someone else owns. Row-major and dense, but for the stride between
// rows of dimension 0.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "base/error.h"
#include "tensor/dtype.h"

namespace wideload {

// Up to 6 dimensions, each >= 0.
class Shape {
 public:
  static constexpr int kMaxRank = 6;
  Shape() = default;
  // Dimensions from the outermost in, each >= 0.
  Shape(std::initializer_list<int64_t> dims);
  explicit Shape(std::span<const int64_t> dims);

  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[static_cast<size_t>(i)]; }
  // Their product; 1 without dimensions.
  int64_t num_elements() const;
  bool operator==(const Shape&) const = default;
  std::string ToString() const;  // "[17, 192]"

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

// Never owns. `row_stride` (elements between rows of dimension 0) may exceed the row length: padded
// rows. A view of const data has the same type; ops state which arguments they write.
class TensorView {
 public:
  TensorView() = default;
  // Dense, or with row_stride elements from row to row. `data` must outlive the view.
  TensorView(DType dtype, const Shape& shape, const void* data);
  TensorView(DType dtype, const Shape& shape, const void* data, int64_t row_stride);

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  // Dimension i, the outermost is 0.
  int64_t dim(int i) const { return shape_[i]; }
  int64_t row_stride() const { return row_stride_; }
  int64_t row_bytes() const { return row_stride_ * DTypeBytes(dtype_); }
  bool dense() const {
    return shape_.rank() == 0 || shape_[0] <= 1 || row_stride_ * shape_[0] == shape_.num_elements();
  }
  int64_t num_bytes() const { return shape_.num_elements() * DTypeBytes(dtype_); }
  bool empty() const { return data_ == nullptr; }

  const void* raw() const { return data_; }
  void* raw_mutable() const { return const_cast<void*>(data_); }

  // The elements as T; T's size must be the dtype's.
  template <class T>
  T* data() const {
    WIDELOAD_CHECK(static_cast<int64_t>(sizeof(T)) == DTypeBytes(dtype_),
                   "view of {} read as {} bytes", DTypeName(dtype_), sizeof(T));
    return static_cast<T*>(const_cast<void*>(data_));
  }
  template <class T>
  T* row(int64_t i) const {
    return data<T>() + i * row_stride_;
  }
  // Rows [begin, begin + count) of dimension 0.
  TensorView Rows(int64_t begin, int64_t count) const;
  // Columns [begin, begin + count) of a matrix.
  TensorView Columns(int64_t begin, int64_t count) const;

 private:
  DType dtype_ = DType::kF32;
  Shape shape_;
  int64_t row_stride_ = 0;
  const void* data_ = nullptr;
};

}  // namespace wideload
