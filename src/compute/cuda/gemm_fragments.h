// What the products of bf16 rows with packed bf16 weights by mma.sync share. Every output has one
// fp32 sum over blocks of 32 k ascending, each in two instructions, whatever the kernel and the
// number of rows: so its bits depend on neither.
//
// A group of weights is the A operand (16 rows: its columns), 8 rows of x are B. What stands where
// within a block of 32 k is chosen so that lane l reads whole vectors: with r = l / 4, q = l % 4
// its A rows r and r + 8 are columns 2 r and 2 r + 1, its k are 8 q to 8 q + 7, of which
// instruction s takes 4 s to 4 s + 3. So its A registers of an instruction are 8 bytes at each of
// two pairs of k, its B registers half of 16 bytes of a row of x, and its sums two neighbouring
// columns of y.
#pragma once

#include "compute/cuda/gemm_parts.h"

namespace wideload::compute::cuda {

// One group, 32 k: 16 lines of a pair of k, or 64 pieces of 16 bytes.
inline constexpr int kBlockBytes = kTileK * kGroupColumns * 2;
inline constexpr int kBlockPieces = kBlockBytes / 16;

// Where piece p of a block lies in shared memory. Lanes of a half warp read the same columns of 4
// lines that are 256 bytes apart, so pieces of these are moved to different banks.
WIDELOAD_DEVICE int PlaceOfPiece(int p) { return (p & ~7) | ((p & 7) ^ (p / 16 * 2)); }

// A registers of a lane for a group's 32 k: those of instruction s are a[s].
struct BlockFragments {
  uint32_t a[2][4];
};

// From 1024 bytes of a packed group, in shared memory or not.
WIDELOAD_DEVICE BlockFragments LoadBlock(const std::byte* block) {
  const int r = device::Lane() / 4;
  const int q = device::Lane() % 4;
  BlockFragments fragments;
  for (int j = 0; j < 4; ++j) {  // line 4 q + j has four pieces of two lanes each
    const int place = PlaceOfPiece((4 * q + j) * 4 + r / 2);
    const Words2 columns = device::Load<Words2>(block + place * 16 + r % 2 * 8);
    fragments.a[j / 2][j % 2 * 2] = columns.values[0];
    fragments.a[j / 2][j % 2 * 2 + 1] = columns.values[1];
  }
  return fragments;
}

// sums += the groups' 32 k times those of 8 rows, of which `x` has this lane's. An instruction
// waits for the one before on the same sums, so the other groups' stand between them.
template <int kGroups>
WIDELOAD_DEVICE void MultiplyBlocks(float (&sums)[kGroups][4],
                                    const BlockFragments (&blocks)[kGroups], const Words4& x) {
  for (int s = 0; s < 2; ++s) {
    const uint32_t b[2] = {x.values[2 * s], x.values[2 * s + 1]};
    for (int g = 0; g < kGroups; ++g) device::MultiplyMatrices(sums[g], blocks[g].a[s], b);
  }
}

// Whether all of a row is read in vectors.
WIDELOAD_DEVICE bool IsAligned(const std::byte* row) {
  return reinterpret_cast<uintptr_t>(row) % sizeof(Words4) == 0;
}

// Elements first to first + 7 of a row of k, zeros behind its end; vectors up to vector_k.
WIDELOAD_DEVICE Words4 LoadEight(const std::byte* row, int64_t first, int64_t vector_k, int64_t k) {
  const auto* x = reinterpret_cast<const uint16_t*>(row) + first;
  if (first + 8 <= vector_k) return device::Load<Words4>(x);
  Words4 eight = {};
  for (int i = 0; i < 8; ++i) {
    if (first + i < k) eight.values[i / 2] |= static_cast<uint32_t>(x[i]) << (i % 2 * 16);
  }
  return eight;
}

// sums of a unit's groups for 8 rows from `row` on become elements of y.
template <int kGroups>
WIDELOAD_DEVICE void StoreUnit(const GemmKernelArgs& args, const GemmProduct& product, int64_t unit,
                               int64_t row, float (&sums)[kGroups][4]) {
  const int64_t in_group = device::Lane() / 4 * 2;
  if (product.bias != nullptr) {
    for (int g = 0; g < kGroups; ++g) {
      const float* bias = product.bias + (unit * kGroups + g) * kGroupColumns + in_group;
      for (int i = 0; i < 4; ++i) sums[g][i] += bias[i / 2];
    }
  }
  for (int j = 0; j < 2; ++j) {
    const int64_t of = row + device::Lane() % 4 * 2 + j;
    if (of >= product.rows) continue;
    float first = sums[0][j];
    float second = sums[0][2 + j];
    if constexpr (kGroups == 2) {
      first = Activate(args.shape.activation, first, sums[1][j]);
      second = Activate(args.shape.activation, second, sums[1][2 + j]);
    }
    StoreSums(args.shape, RowOf(product.y, of), unit * kGroupColumns + in_group, first, second);
  }
}

}  // namespace wideload::compute::cuda
