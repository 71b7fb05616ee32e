// An array of numbers of any rank: what every array format (.npy, .pt, safetensors, nested JSON
// arrays) is read into. Plain values; thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tensor/tensor_view.h"

namespace wideload::formats {

struct NumberArray {
  std::vector<int64_t> shape = {};  // row-major; empty: one number
  std::vector<double> values = {};  // [product of shape]
  bool of_integers = true;          // the source's type holds integers only

  size_t rank() const { return shape.size(); }
  bool operator==(const NumberArray&) const = default;
};

// Arrays of more elements are refused.
inline constexpr int64_t kMaxArrayElements = int64_t{1} << 30;

// Elements of an array of this shape. Errors: kInvalid prefixed by `where`: a negative extent, more
// than kMaxArrayElements.
int64_t CheckedElements(const std::vector<int64_t>& shape, const std::string& where);

// "[20, 61, 256]"
std::string ShapeText(const std::vector<int64_t>& shape);
// The index of element number `element`: "[3, 0, 17]"
std::string IndexText(const std::vector<int64_t>& shape, int64_t element);

// Errors: kInvalid prefixed by `where`: BOOL, integers beyond 2^53 (doubles hold them exactly
// below), more than kMaxArrayElements.
NumberArray ArrayOfTensor(const TensorView& view, const std::string& where);

// Errors: kInvalid prefixed by `where` unless every value is an integer in [0, max]. [product of
// shape], row-major.
std::vector<int32_t> IdsOf(const NumberArray& array, int32_t max, const std::string& where);

}  // namespace wideload::formats
