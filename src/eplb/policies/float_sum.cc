#include "eplb/policies/float_sum.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <limits>

namespace wideload::eplb {
namespace {

constexpr size_t kLanes = 8;  // floats of a 256-bit vector
constexpr size_t kUnroll = 4;
constexpr size_t kLevels = 4;
constexpr size_t kMinLevelPower = 4;

// kWidth sums side by side over rows of kWidth floats: each level takes over the level below it
// after every 2^power additions.
template <size_t kWidth>
std::array<float, kWidth> CascadeSum(const float* data, size_t num_rows) {
  const auto log2 = static_cast<size_t>(num_rows <= 1 ? 0 : std::bit_width(num_rows - 1));
  const size_t power = std::max(kMinLevelPower, log2 / kLevels);
  const size_t step = size_t{1} << power;
  std::array<std::array<float, kWidth>, kLevels> sums{};
  size_t row = 0;
  const auto add_row = [&] {
    for (size_t k = 0; k < kWidth; ++k) sums[0][k] += data[row * kWidth + k];
    ++row;
  };
  while (row + step <= num_rows) {
    for (size_t i = 0; i < step; ++i) add_row();
    for (size_t level = 1; level < kLevels; ++level) {
      for (size_t k = 0; k < kWidth; ++k) sums[level][k] += sums[level - 1][k];
      sums[level - 1].fill(0);
      if ((row & ((step - 1) << (level * power))) != 0) break;
    }
  }
  for (size_t left = num_rows - row; left > 0; --left) add_row();
  for (size_t level = 1; level < kLevels; ++level)
    for (size_t k = 0; k < kWidth; ++k) sums[0][k] += sums[level][k];
  return sums[0];
}

// The sum of `count` vectors of kWidth floats, four at a time; what is left over joins the first.
template <size_t kWidth>
std::array<float, kWidth> SumVectors(const float* data, size_t count) {
  const size_t groups = count / kUnroll;
  const auto four = CascadeSum<kWidth * kUnroll>(data, groups);
  std::array<float, kWidth> sum;
  for (size_t lane = 0; lane < kWidth; ++lane) {
    sum[lane] = four[lane];
    for (size_t i = groups * kUnroll; i < count; ++i) sum[lane] += data[i * kWidth + lane];
    for (size_t k = 1; k < kUnroll; ++k) sum[lane] += four[k * kWidth + lane];
  }
  return sum;
}

}  // namespace

float PyTorchSum(std::span<const float> row) {
  if (row.size() < kLanes) return SumVectors<1>(row.data(), row.size())[0];
  const size_t vectors = row.size() / kLanes;
  const std::array<float, kLanes> lanes = SumVectors<kLanes>(row.data(), vectors);
  float sum = 0;
  for (size_t i = vectors * kLanes; i < row.size(); ++i) sum += row[i];
  for (const float lane : lanes) sum += lane;
  return sum;
}

float PyTorchMean(std::span<const float> row) {
  if (row.empty()) return std::numeric_limits<float>::quiet_NaN();
  return PyTorchSum(row) / static_cast<float>(row.size());
}

}  // namespace wideload::eplb
