// What the kernels of GPUs take for granted of the matrix instruction, and no manual promises:
// looked at on the device itself. An output of mma.sync has the same bits in every row and column
// and whatever its neighbours are, or a row's bits would depend on its batch; and products that are
// zero leave an accumulator's bits, or padding would change them (-0 may become 0).
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>

#include "device/kernel.h"

namespace wideload::bench {

// mma.sync. Tests put something else in its place.
struct MatrixInstruction {
  static WIDELOAD_DEVICE void Run(float (&sums)[4], const uint32_t (&a)[4],
                                  const uint32_t (&b)[2]) {
    device::MultiplyMatrices(sums, a, b);
  }
};

// What was looked at, and of how many outputs the bits were others.
struct FactCounts {
  int64_t outputs = 0;
  int32_t differing = 0;
};

// Numbers that depend on their arguments alone.
WIDELOAD_DEVICE uint32_t Mixed(uint32_t value) {
  value = (value ^ (value >> 16)) * 0x7feb352dU;
  value = (value ^ (value >> 15)) * 0x846ca68bU;
  return value ^ (value >> 16);
}
WIDELOAD_DEVICE uint32_t Mixed(uint32_t a, uint32_t b, uint32_t c) {
  return Mixed(Mixed(Mixed(a) + b) + c);
}

// A bf16 of any sign and mantissa, within 2^spread of 1 either way.
WIDELOAD_DEVICE uint32_t RandomBf16(uint32_t random, int spread) {
  const uint32_t range = 2U * static_cast<uint32_t>(spread) + 1;
  const uint32_t exponent = 127U - static_cast<uint32_t>(spread) + (random >> 8) % range;
  return (random & 0x807fU) | exponent << 7;
}
// A neighbour: as above, and now and then an infinity, a NaN, a denormal or zero.
WIDELOAD_DEVICE uint32_t RandomNeighbour(uint32_t random, int spread) {
  const uint32_t kind = Mixed(random) % 16;
  if (kind == 0) return (random & 0x807fU) | 0x7f80U;
  if (kind == 1) return random & 0x807fU;
  return RandomBf16(random, spread);
}
WIDELOAD_DEVICE float RandomSum(uint32_t random, int spread) {
  const uint32_t range = 2U * static_cast<uint32_t>(spread) + 1;
  const uint32_t exponent = 127U - static_cast<uint32_t>(spread) + Mixed(random) % range;
  return device::FloatOfBits((random & 0x807fffffU) | exponent << 23);
}

// Whether exponents are close, so that every product has a part in the rounding, or far apart.
WIDELOAD_DEVICE int SpreadOf(uint32_t problem) {
  const uint32_t kind = problem % 5;
  return kind == 0 ? 1 : kind == 1 ? 3 : kind == 2 ? 8 : kind == 3 ? 16 : 30;
}

// Of the instruction's tile of outputs.
inline constexpr int kRows = 16;
inline constexpr int kColumns = 8;

// A warp takes a problem, one row of A, one column of B and an accumulator, to every place of the
// tile with other neighbours each time, and compares with the first place among zeros.
template <class Instruction>
struct PlacesKernel {
  struct Args {
    uint32_t seed;
    int32_t* differing;
  };
  static constexpr int kThreads = device::kWarp;

  static WIDELOAD_DEVICE void Run(const Args& args) {
    Tile tile = {.problem = static_cast<uint32_t>(device::Block()), .seed = args.seed};
    const float expected = Output(tile);
    tile.has_neighbours = true;
    for (tile.row = 0; tile.row < kRows; ++tile.row) {
      for (tile.column = 0; tile.column < kColumns; ++tile.column) {
        const float output = Output(tile);
        if (device::Lane() == 0 && device::BitsOfFloat(output) != device::BitsOfFloat(expected))
          device::AtomicAdd(args.differing, 1);
      }
    }
  }

 private:
  // Where the problem stands, and among what.
  struct Tile {
    uint32_t problem;
    uint32_t seed;
    int row = 0;
    int column = 0;
    bool has_neighbours = false;

    WIDELOAD_DEVICE uint32_t place() const {
      return static_cast<uint32_t>(row * kColumns + column);
    }
  };
  enum Operand : uint32_t { kLeft, kRight, kSum };

  // Row `index` of A or column `index` of B at k.
  static WIDELOAD_DEVICE uint32_t Element(const Tile& tile, Operand of, int index, int k) {
    const int spread = SpreadOf(tile.problem);
    const uint32_t where = static_cast<uint32_t>(of) << 16 | static_cast<uint32_t>(k);
    if (index == (of == kLeft ? tile.row : tile.column))
      return RandomBf16(Mixed(tile.problem, tile.seed, where), spread);
    if (!tile.has_neighbours) return 0;
    const uint32_t other = 1 + tile.place() * kRows + static_cast<uint32_t>(index);
    return RandomNeighbour(Mixed(tile.problem, tile.seed + other, where), spread);
  }
  static WIDELOAD_DEVICE float Accumulator(const Tile& tile, int row, int column) {
    const bool is_ours = row == tile.row && column == tile.column;
    if (!is_ours && !tile.has_neighbours) return 0;
    const auto at = static_cast<uint32_t>(row * kColumns + column);
    const uint32_t other = is_ours ? 0 : 1 + at + tile.place() * kRows * kColumns;
    return RandomSum(Mixed(tile.problem, tile.seed + other, kSum << 16),
                     2 * SpreadOf(tile.problem));
  }

  // The output at the place of the problem, for all lanes.
  static WIDELOAD_DEVICE float Output(const Tile& tile) {
    const int lane_row = device::Lane() / 4;
    const int lane_k = device::Lane() % 4 * 2;
    uint32_t a[4];
    uint32_t b[2];
    float sums[4];
    for (int i = 0; i < 4; ++i) {
      const int row = lane_row + i % 2 * 8;
      const int k = lane_k + i / 2 * 8;
      a[i] = Element(tile, kLeft, row, k) | Element(tile, kLeft, row, k + 1) << 16;
      sums[i] = Accumulator(tile, lane_row + i / 2 * 8, lane_k + i % 2);
    }
    for (int i = 0; i < 2; ++i) {
      const int k = lane_k + i * 8;
      b[i] = Element(tile, kRight, lane_row, k) | Element(tile, kRight, lane_row, k + 1) << 16;
    }
    Instruction::Run(sums, a, b);
    const float even = tile.row >= 8 ? sums[2] : sums[0];
    const float odd = tile.row >= 8 ? sums[3] : sums[1];
    return device::Shuffle(tile.column % 2 == 0 ? even : odd, tile.row % 8 * 4 + tile.column / 2);
  }
};

// A warp takes accumulators of any finite or infinite value through products that are zero: those
// of zeros of either sign with numbers or with zeros.
template <class Instruction>
struct ZerosKernel {
  struct Args {
    uint32_t seed;
    int32_t* differing;
  };
  static constexpr int kThreads = device::kWarp;

  static WIDELOAD_DEVICE void Run(const Args& args) {
    const auto problem = static_cast<uint32_t>(device::Block());
    const auto lane = static_cast<uint32_t>(device::Lane());
    const uint32_t kind = problem % 3;  // A, B or both are zero
    const auto pair = [&](uint32_t i, bool is_zero) {
      const uint32_t random = Mixed(problem, args.seed + i, lane);
      if (is_zero) return random & 0x80008000U;
      return RandomBf16(random, 60) | RandomBf16(Mixed(random), 60) << 16;
    };
    uint32_t a[4];
    uint32_t b[2];
    float sums[4];
    uint32_t before[4];
    for (uint32_t i = 0; i < 4; ++i) a[i] = pair(i, kind != 1);
    for (uint32_t i = 0; i < 2; ++i) b[i] = pair(4 + i, kind != 0);
    for (uint32_t i = 0; i < 4; ++i) {
      uint32_t bits = Mixed(problem, args.seed + 6 + i, lane);
      if ((bits & 0x7f800000U) == 0x7f800000U) bits &= 0xff800000U;  // no NaN
      before[i] = bits;
      sums[i] = device::FloatOfBits(bits);
    }
    Instruction::Run(sums, a, b);
    for (int i = 0; i < 4; ++i) {
      const uint32_t after = device::BitsOfFloat(sums[i]);
      const bool is_zero = before[i] << 1 == 0 && after << 1 == 0;
      if (after != before[i] && !is_zero) device::AtomicAdd(args.differing, 1);
    }
  }
};

// Runs one of these over so many problems, of which each has an output for each place of a tile.
template <class Kernel>
FactCounts CountDiffering(device::Device& device, int64_t problems, uint32_t seed) {
  const std::unique_ptr<device::Stream> stream = device.MakeStream();
  const device::Memory counter = device.Allocate(sizeof(int32_t));
  const device::Memory result = device.AllocateHost(sizeof(int32_t));
  auto* const differing = reinterpret_cast<int32_t*>(counter.data());
  device::Launch<Kernel>(*stream, {.blocks = problems, .threads = Kernel::kThreads},
                         {seed, differing});
  stream->Copy(result.data(), differing, sizeof(int32_t));
  stream->Synchronize();
  FactCounts counts = {.outputs = problems * kRows * kColumns};
  std::memcpy(&counts.differing, result.data(), sizeof(int32_t));
  return counts;
}

}  // namespace wideload::bench
