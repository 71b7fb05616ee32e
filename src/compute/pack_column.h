// One column of a packed group: how each weight format lays out the values of an output feature.
// Internal to compute.
#pragma once

#include <array>
#include <cstdint>

#include "compute/kernels.h"
#include "compute/weight_source.h"

namespace wideload::compute {

// Why a column cannot be packed: found while packing on several threads, thrown after.
struct Refusal {
  const WeightSource* source = nullptr;  // null: none
  WeightFormat format = WeightFormat::kF32;
  int64_t row = 0;
  int64_t k = 0;

  bool is_set() const { return source != nullptr; }
  // Throws the refusal, if there is one.
  void ThrowIfSet() const;
};

// Writes output feature `row` of `source` as column `c` (0 .. 15) of `group`, whose bytes are zero
// before the first column. Returns the first value that the format cannot hold.
Refusal PackColumn(WeightFormat format, const WeightSource& source, int64_t row, int64_t c,
                   std::byte* group);

// The first of k bf16 values of each column, in one piece; null: padding.
using Bf16Rows = std::array<const std::byte*, kGroupColumns>;

// Writes all columns of a kBF16 group at once: the bytes that PackColumn writes one after the
// other, a line at a time.
void PackBf16Group(const Bf16Rows& rows, int64_t k, std::byte* group);

}  // namespace wideload::compute
