#include "formats/number_array.h"

#include <fmt/ranges.h>

#include <cmath>

#include "base/error.h"
#include "statistics/tensor_numbers.h"

namespace wideload::formats {
namespace {

constexpr int64_t kExact = int64_t{1} << 53;

bool HoldsIntegers(DType dtype) {
  switch (dtype) {
    case DType::kI8:
    case DType::kU8:
    case DType::kI16:
    case DType::kI32:
    case DType::kI64:
    case DType::kU32:
    case DType::kU64:
      return true;
    default:
      return false;
  }
}

}  // namespace

int64_t CheckedElements(const std::vector<int64_t>& shape, const std::string& where) {
  int64_t elements = 1;
  bool is_empty = false;
  for (const int64_t extent : shape) {
    if (extent < 0)
      Throw(ErrorKind::kInvalid, "{} is {}; extents must be at least 0", where, ShapeText(shape));
    is_empty = is_empty || extent == 0;
    if (extent > 0 && elements > kMaxArrayElements / extent)
      Throw(ErrorKind::kInvalid, "{} is {}; at most {} elements are allowed", where,
            ShapeText(shape), kMaxArrayElements);
    if (extent > 0) elements *= extent;
  }
  return is_empty ? 0 : elements;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::string IndexText(const std::vector<int64_t>& shape, int64_t element) {
  std::vector<int64_t> index(shape.size());
  for (size_t d = shape.size(); d-- > 0; element /= shape[d]) index[d] = element % shape[d];
  return ShapeText(index);
}

NumberArray ArrayOfTensor(const TensorView& view, const std::string& where) {
  NumberArray array;
  for (int d = 0; d < view.shape().rank(); ++d) array.shape.push_back(view.dim(d));
  const int64_t elements = CheckedElements(array.shape, where);
  array.of_integers = HoldsIntegers(view.dtype());
  array.values.reserve(static_cast<size_t>(elements));
  for (int64_t i = 0; i < elements; ++i) {
    if (array.of_integers) {
      const int64_t value = statistics::IntegerAt(view, i, where);
      if (value > kExact || value < -kExact)
        Throw(ErrorKind::kInvalid, "{} holds {}; allowed: -2^53 to 2^53", where, value);
      array.values.push_back(static_cast<double>(value));
    } else {
      array.values.push_back(statistics::NumberAt(view, i, where));
    }
  }
  return array;
}

std::vector<int32_t> IdsOf(const NumberArray& array, int32_t max, const std::string& where) {
  std::vector<int32_t> ids;
  ids.reserve(array.values.size());
  for (size_t i = 0; i < array.values.size(); ++i) {
    const double value = array.values[i];
    if (!(value >= 0 && value <= max) || value != std::floor(value))
      Throw(ErrorKind::kInvalid, "{}: entry {} is {}; it must be an integer in [0, {}]", where, i,
            value, max);
    ids.push_back(static_cast<int32_t>(value));
  }
  return ids;
}

}  // namespace wideload::formats
