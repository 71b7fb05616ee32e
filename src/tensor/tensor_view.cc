#include "tensor/tensor_view.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace wideload {

Shape::Shape(std::initializer_list<int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}

Shape::Shape(std::span<const int64_t> dims) : rank_(static_cast<int>(dims.size())) {
  WIDELOAD_CHECK(rank_ <= kMaxRank, "a shape of {} dimensions", rank_);
  for (int i = 0; i < rank_; ++i) {
    WIDELOAD_CHECK(dims[static_cast<size_t>(i)] >= 0, "dimension {} is {}", i,
                   dims[static_cast<size_t>(i)]);
    dims_[static_cast<size_t>(i)] = dims[static_cast<size_t>(i)];
  }
}

int64_t Shape::num_elements() const {
  int64_t count = 1;
  for (int i = 0; i < rank_; ++i) count *= dims_[static_cast<size_t>(i)];
  return count;
}

std::string Shape::ToString() const {
  return fmt::format("[{}]", fmt::join(dims_.begin(), dims_.begin() + rank_, ", "));
}

namespace {

int64_t DenseRow(const Shape& shape) {
  int64_t row = 1;
  for (int i = 1; i < shape.rank(); ++i) row *= shape[i];
  return row;
}

}  // namespace

TensorView::TensorView(DType dtype, const Shape& shape, const void* data)
    : TensorView(dtype, shape, data, DenseRow(shape)) {}

TensorView::TensorView(DType dtype, const Shape& shape, const void* data, int64_t row_stride)
    : dtype_(dtype), shape_(shape), row_stride_(row_stride), data_(data) {
  WIDELOAD_CHECK(row_stride >= DenseRow(shape), "row stride {} of shape {}", row_stride,
                 shape.ToString());
}

TensorView TensorView::Rows(int64_t begin, int64_t count) const {
  WIDELOAD_CHECK(shape_.rank() >= 1 && begin >= 0 && count >= 0 && begin + count <= shape_[0],
                 "rows [{}, {}) of {}", begin, begin + count, shape_.ToString());
  std::array<int64_t, Shape::kMaxRank> dims{};
  for (int i = 0; i < shape_.rank(); ++i) dims[static_cast<size_t>(i)] = shape_[i];
  dims[0] = count;
  return TensorView(dtype_, Shape(std::span(dims.data(), static_cast<size_t>(shape_.rank()))),
                    static_cast<const char*>(data_) + begin * row_bytes(), row_stride_);
}

TensorView TensorView::Columns(int64_t begin, int64_t count) const {
  WIDELOAD_CHECK(shape_.rank() == 2 && begin >= 0 && count >= 0 && begin + count <= shape_[1],
                 "columns [{}, {}) of {}", begin, begin + count, shape_.ToString());
  return TensorView(dtype_, {shape_[0], count},
                    static_cast<const std::byte*>(data_) + begin * DTypeBytes(dtype_), row_stride_);
}

}  // namespace wideload
