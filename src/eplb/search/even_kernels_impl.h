// The kernels of even_kernels.h; included by one file per instruction set, in its own namespace, so
// that nothing here is shared between them.
#pragma once

#include "eplb/search/even_kernels.h"

namespace wideload::eplb {
namespace {

// Lanes of one register: compilers split longer vectors badly.
#if defined(__AVX512F__)
constexpr int32_t kWidth = 16;
#elif defined(__AVX2__)
constexpr int32_t kWidth = 8;
#else
constexpr int32_t kWidth = 4;
#endif
constexpr int32_t kParts = kLanes / kWidth;

using Block [[gnu::vector_size(4 * kWidth)]] = float;
using Bits [[gnu::vector_size(4 * kWidth)]] = int32_t;

// Sums of as many exponentials as there are ranks must stay finite.
constexpr float kMostExponent = 75.0F;
constexpr float kLeastExponent = -80.0F;

inline __attribute__((always_inline)) void Load(const float* from, Block& block) {
  __builtin_memcpy(&block, from, sizeof(block));
}

inline __attribute__((always_inline)) void Store(const Block& block, float* to) {
  __builtin_memcpy(to, &block, sizeof(block));
}

// Adds in the same order whatever the width is.
inline __attribute__((always_inline)) float Sum(const Block (&parts)[kParts]) {
  float lanes[kLanes];
  for (int32_t part = 0; part < kParts; ++part) Store(parts[part], lanes + part * kWidth);
  for (int32_t half = kLanes / 2; half > 0; half /= 2)
    for (int32_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

// e^x to about 1e-7: 2^n times a polynomial in what is left of x (Cephes, expf).
inline __attribute__((always_inline)) void Exponential(Block& x) {
  constexpr float kToInteger = 12582912.0F;  // 1.5 x 2^23: adding it rounds to a whole number
  x = x < kMostExponent ? x : Block{} + kMostExponent;
  x = x > kLeastExponent ? x : Block{} + kLeastExponent;
  Block whole = x * 1.44269504088896341F + kToInteger;
  whole -= kToInteger;
  const Block rest = (x - whole * 0.693359375F) + whole * 2.12194440e-4F;
  const Block square = rest * rest;
  Block series = rest * 1.9875691500e-4F + 1.3981999507e-3F;
  const Block middle = rest * 8.3334519073e-3F + 4.1665795894e-2F;
  const Block low = rest * 1.6666665459e-1F + 5.0000001201e-1F;
  series = (series * square + middle) * square + low;
  series = series * square + (rest + 1.0F);
  const Bits power = (__builtin_convertvector(whole, Bits) + 127) << 23;
  Block scale;
  __builtin_memcpy(&scale, &power, sizeof(scale));
  x = series * scale;
}

// log x of normal numbers above 0, to about 1e-7 (Cephes, logf).
inline __attribute__((always_inline)) void Logarithm(Block& x) {
  Bits bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  Bits exponent = (bits >> 23) - 126;
  bits = (bits & 0x007fffff) | 0x3f000000;
  Block mantissa;  // in [0.5, 1)
  __builtin_memcpy(&mantissa, &bits, sizeof(mantissa));
  const auto small = mantissa < 0.707106781186547524F;
  exponent = small ? exponent - 1 : exponent;
  mantissa = (small ? mantissa + mantissa : mantissa) - 1.0F;
  const Block square = mantissa * mantissa;
  const Block fourth = square * square;
  Block series = mantissa * -1.2420140846e-1F + 1.4249322787e-1F;
  series += (mantissa * -1.1514610310e-1F + 1.1676998740e-1F + square * 7.0376836292e-2F) * square;
  const Block low = (mantissa * -2.4999993993e-1F + 3.3333331174e-1F) +
                    (mantissa * -1.6668057665e-1F + 2.0000714765e-1F) * square;
  series = (series * fourth + low) * (mantissa * square);
  const Block power = __builtin_convertvector(exponent, Block);
  x = mantissa + (series - square * 0.5F) + power * 0.693147180559945309F;
}

float TryChange(const EvenLanes& lanes, const EvenChange& change, float* loads,
                float* exponentials) {
  Block cost[kParts] = {};
  for (int32_t at = 0; at < lanes.num_blocks * kParts; ++at) {
    const int32_t lane = at * kWidth;
    const int32_t in_block = at % kParts * kWidth;
    const int32_t first = (lane - in_block) * lanes.num_ranks + in_block;
    const int32_t new_first = (lane - in_block) * change.num_ranks + in_block;
    Block sum_before;
    Block of_first;
    Block of_second;
    Load(lanes.sums + lane, sum_before);
    Load(change.load[0] + lane, of_first);
    Load(change.load[1] + lane, of_second);
    Block others = sum_before;
    Block changed = {};
    for (int32_t i = 0; i < change.num_ranks; ++i) {
      Block load;
      Block before;
      Load(lanes.loads + first + change.rank[i] * kLanes, load);
      Load(lanes.exponentials + first + change.rank[i] * kLanes, before);
      load += of_first * change.factor[0][i] + of_second * change.factor[1][i];
      Store(load, loads + new_first + i * kLanes);
      others -= before;
      load = load * lanes.sharpness + change.offset[i];
      Exponential(load);
      Store(load, exponentials + new_first + i * kLanes);
      changed += load;
    }
    // What is left of a sum once its largest terms are taken off is rounding.
    others = others > sum_before * 1e-6F ? others : sum_before * 1e-6F;
    Block ratio = (others + changed) / sum_before;
    Logarithm(ratio);
    Block weight;
    Load(lanes.weights + lane, weight);
    cost[at % kParts] += weight * ratio;
  }
  return Sum(cost);
}

void AddUp(const EvenLanes& lanes) {
  for (int32_t at = 0; at < lanes.num_blocks * kParts; ++at) {
    const int32_t lane = at * kWidth;
    const int32_t in_block = at % kParts * kWidth;
    const float* row = lanes.exponentials + (lane - in_block) * lanes.num_ranks + in_block;
    Block sum = {};
    for (int32_t r = 0; r < lanes.num_ranks; ++r, row += kLanes) {
      Block term;
      Load(row, term);
      sum += term;
    }
    Store(sum, lanes.sums + lane);
  }
}

float Exponentiate(const EvenLanes& lanes, const float* offsets) {
  for (int32_t block = 0; block < lanes.num_blocks; ++block) {
    for (int32_t r = 0; r < lanes.num_ranks; ++r) {
      for (int32_t part = 0; part < kParts; ++part) {
        const int32_t at = (block * lanes.num_ranks + r) * kLanes + part * kWidth;
        Block load;
        Load(lanes.loads + at, load);
        load = load * lanes.sharpness + offsets[r];
        Exponential(load);
        Store(load, lanes.exponentials + at);
      }
    }
  }
  AddUp(lanes);
  Block cost[kParts] = {};
  for (int32_t at = 0; at < lanes.num_blocks * kParts; ++at) {
    Block sum;
    Block weight;
    Load(lanes.sums + at * kWidth, sum);
    Load(lanes.weights + at * kWidth, weight);
    Logarithm(sum);
    cost[at % kParts] += weight * sum;
  }
  return Sum(cost);
}

constexpr EvenKernels kKernels = {TryChange, Exponentiate, AddUp};

}  // namespace
}  // namespace wideload::eplb
