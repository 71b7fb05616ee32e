// What the kernels of matrix products share: which rows a block computes, how packed weights lie
// in shared memory, what becomes of sums.
#pragma once

#include <algorithm>

#include "compute/cuda/kernels.h"
#include "compute/cuda/row_kernels.h"
#include "device/kernel.h"

namespace wideload::compute::cuda {

// What a lane reads or writes at once.
using Words4 = Pack<uint32_t, 4>;
using Words2 = Pack<uint32_t, 2>;

// Rows [first_row, first_row + the kernel's) of a product.
struct RowTile {
  int32_t product = 0;
  int32_t first_row = 0;
};

// What all kernels of bf16 products are started with.
struct GemmKernelArgs {
  GemmShape shape;
  int64_t num_units = 0;  // groups of columns, or pairs of a gate and an up group
  GemmProduct product;    // the only one, where `products` is null
  const GemmProduct* products = nullptr;
  const RowTile* tiles = nullptr;  // of block x; with one product: its rows in order
};

// Where a block begins.
struct BlockRows {
  GemmProduct product;
  int64_t first_row = 0;
};

// Of the block that asks.
WIDELOAD_DEVICE BlockRows RowsOfBlock(const GemmKernelArgs& args, int64_t rows_per_tile) {
  if (args.products == nullptr) return {args.product, device::Block() * rows_per_tile};
  const RowTile tile = args.tiles[device::Block()];
  return {args.products[tile.product], tile.first_row};
}

// What activation.h says.
WIDELOAD_DEVICE float Activate(const GatedActivation& activation, float gate, float up) {
  constexpr float kLog2OfE = 1.44269504F;
  const float limit = activation.limit;
  // Comparisons that leave a NaN as it is.
  gate = gate > limit ? limit : gate;
  up = up > limit ? limit : up;
  up = up < -limit ? -limit : up;
  const float exponential = device::Exp2(gate * (activation.alpha * -kLog2OfE));
  return device::Divide(gate, 1.0F + exponential) * (up + activation.up_offset);
}

// Element `column` of a row of y from its sum, bias included.
WIDELOAD_DEVICE void StoreSum(GemmEpilogue epilogue, std::byte* row, int64_t column, float sum) {
  if (epilogue == GemmEpilogue::kAdd) sum = reinterpret_cast<float*>(row)[column] + sum;
  StoreElement(row, epilogue <= GemmEpilogue::kAdd, column, sum);
}

// Elements `column`, which is even, and the next one, as far as there are: in one store where the
// row's alignment allows it.
WIDELOAD_DEVICE void StoreSums(const GemmShape& shape, std::byte* row, int64_t column, float first,
                               float second) {
  const bool is_f32 = shape.epilogue <= GemmEpilogue::kAdd;
  const uintptr_t pair_bytes = is_f32 ? sizeof(Words2) : sizeof(uint32_t);
  if (column + 1 >= shape.n || reinterpret_cast<uintptr_t>(row) % pair_bytes != 0) {
    if (column < shape.n) StoreSum(shape.epilogue, row, column, first);
    if (column + 1 < shape.n) StoreSum(shape.epilogue, row, column + 1, second);
    return;
  }
  if (!is_f32) {
    device::Store(row + 2 * column, device::PackBf16(first, second));
    return;
  }
  std::byte* const pair = row + 4 * column;
  if (shape.epilogue == GemmEpilogue::kAdd) {
    const auto before = device::Load<Words2>(pair);
    first = device::FloatOfBits(before.values[0]) + first;
    second = device::FloatOfBits(before.values[1]) + second;
  }
  device::Store(pair, Words2{{device::BitsOfFloat(first), device::BitsOfFloat(second)}});
}

// Makes the tiles of a call, each `rows_per_tile` rows of a product; how many there are.
inline int64_t CutRows(device::Stream& stream, const GemmCall& call, int64_t rows_per_tile,
                       GemmKernelArgs& args) {
  const auto tiles_of = [&](const GemmProduct& product) {
    return (product.rows + rows_per_tile - 1) / rows_per_tile;
  };
  int64_t num_tiles = 0;
  for (const GemmProduct& product : call.products) num_tiles += tiles_of(product);
  args.product = call.products[0];
  if (call.products.size() == 1) return num_tiles;
  const device::Staged<RowTile> tiles = stream.Stage<RowTile>(num_tiles);
  size_t next = 0;
  for (size_t i = 0; i < call.products.size(); ++i) {
    for (int64_t row = 0; row < call.products[i].rows; row += rows_per_tile)
      tiles.host[next++] = {static_cast<int32_t>(i), static_cast<int32_t>(row)};
  }
  stream.Send(tiles);
  args.products = call.device_products;
  args.tiles = tiles.device;
  return num_tiles;
}

// Of one product.
inline int64_t MostRows(const GemmCall& call) {
  int64_t most = 0;
  for (const GemmProduct& product : call.products) most = std::max(most, product.rows);
  return most;
}

}  // namespace wideload::compute::cuda
