// The router: which experts each row chooses, and with what weights. Both are those of the kernel
// sets of compute/cpu bit for bit: the same exp, the same order of every sum.
#pragma once

#include "compute/cuda/kernels.h"
#include "compute/cuda/row_kernels.h"
#include "device/kernel.h"

namespace wideload::compute::cuda {

// e^x, as Exp of compute/cpu/rows_impl.h has it: within 2 ulp; 0 below about -103.3, infinity above
// about 88.7, NaN of NaN. ex2.approx would do for weights, but not choose as processors do.
WIDELOAD_DEVICE float PreciseExp(float x) {
  if (x < -104.0F) x = -104.0F;
  if (x > 89.0F) x = 89.0F;
  // Adding 1.5 * 2^23 rounds to a whole number, which is then in the low bits.
  constexpr float kRounder = 12582912.0F;
  const float rounded = x * 1.44269504F + kRounder;
  const float n = rounded - kRounder;
  const auto power =
      static_cast<int32_t>(device::BitsOfFloat(rounded) - device::BitsOfFloat(kRounder));
  float r = device::MultiplyAdd(-n, 0.693359375F, x);
  r = device::MultiplyAdd(-n, -2.12194440e-4F, r);
  float p = 1.9875691500e-4F;
  p = device::MultiplyAdd(p, r, 1.3981999507e-3F);
  p = device::MultiplyAdd(p, r, 8.3334519073e-3F);
  p = device::MultiplyAdd(p, r, 4.1665795894e-2F);
  p = device::MultiplyAdd(p, r, 1.6666665459e-1F);
  p = device::MultiplyAdd(p, r, 5.0000001201e-1F);
  const float value = device::MultiplyAdd(p, r * r, r) + 1.0F;
  // In two steps, of which the first is exact: 2^power alone may be no number.
  const int32_t half = power >> 1;
  const auto power_of_two = [](int32_t e) {
    return device::FloatOfBits(static_cast<uint32_t>(e + 127) << 23);
  };
  return value * power_of_two(half) * power_of_two(power - half);
}

// Numbers as integers of the same order, all greater than kTaken; a NaN is -infinity, -0 is 0.
inline constexpr uint32_t kTaken = 0;
WIDELOAD_DEVICE uint32_t OrderedBits(float value) {
  if (value != value) value = -__builtin_inff();
  if (value == 0) value = 0;
  const uint32_t bits = device::BitsOfFloat(value);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}
WIDELOAD_DEVICE float FromOrderedBits(uint32_t ordered) {
  return device::FloatOfBits((ordered & 0x80000000U) != 0 ? ordered & 0x7fffffffU : ~ordered);
}

// One warp is a block and takes a row: 8 bytes of shared memory for each expert, so that as many
// rows as a multiprocessor has room for blocks are under way, and none waits for another.
struct RouterKernel {
  using Args = RouterArgs;
  static constexpr int kThreads = device::kWarp;

  // What the warp has in shared memory.
  struct Row {
    float* scores;     // [experts]
    uint32_t* keys;    // [experts] ordered bits of the choice, kTaken once it is made
    uint32_t* groups;  // [num_groups] likewise of groups
  };
  static int64_t SharedBytes(const Args& args) {
    return args.experts * int64_t{sizeof(float) + sizeof(uint32_t)} +
           args.num_groups * int64_t{sizeof(uint32_t)};
  }

  static WIDELOAD_DEVICE void Run(const Args& args) {
    auto* const scores = reinterpret_cast<float*>(device::SharedMemory());
    auto* const keys = reinterpret_cast<uint32_t*>(scores + args.experts);
    const Row row = {.scores = scores, .keys = keys, .groups = keys + args.experts};
    const auto* logits = reinterpret_cast<const float*>(RowOf(args.logits, device::Block()));
    args.sigmoid ? Sigmoids(args, logits, row.scores) : Softmax(args, logits, row.scores);
    const bool by_logit = args.sigmoid && args.bias == nullptr;
    for (int64_t e = device::Lane(); e < args.experts; e += device::kWarp) {
      const float base = by_logit ? logits[e] : row.scores[e];
      row.keys[e] = OrderedBits(args.bias != nullptr ? base + args.bias[e] : base);
    }
    device::SyncWarp();
    if (args.top_groups < args.num_groups) TakeOtherGroups(args, row);
    Choose(args, row);
  }

 private:
  static WIDELOAD_DEVICE void Sigmoids(const Args& args, const float* logits, float* scores) {
    for (int64_t e = device::Lane(); e < args.experts; e += device::kWarp)
      scores[e] = device::Divide(1.0F, 1.0F + PreciseExp(0.0F - logits[e]));
  }

  // NaN logits stay out of the maximum and make the sum NaN.
  static WIDELOAD_DEVICE void Softmax(const Args& args, const float* logits, float* scores) {
    float largest = -__builtin_inff();
    for (int64_t e = device::Lane(); e < args.experts; e += device::kWarp)
      largest = logits[e] > largest ? logits[e] : largest;
    for (int mask = device::kWarp / 2; mask > 0; mask /= 2) {
      const float other = device::ShuffleXor(largest, mask);
      largest = other > largest ? other : largest;
    }
    for (int64_t e = device::Lane(); e < args.experts; e += device::kWarp)
      scores[e] = PreciseExp(logits[e] - largest);
    device::SyncWarp();
    // Sixteen chains and a tree, as processors have them; both halves of the warp do the same.
    constexpr int kChains = 16;
    float sum = 0;
    for (int64_t e = device::Lane() % kChains; e < args.experts; e += kChains) sum += scores[e];
    for (int mask = kChains / 2; mask > 0; mask /= 2) sum += device::ShuffleXor(sum, mask);
    device::SyncWarp();
    for (int64_t e = device::Lane(); e < args.experts; e += device::kWarp)
      scores[e] = device::Divide(scores[e], sum);
  }

  // The place of the largest key, the lowest of equal ones, for all lanes. `count` is at least 1.
  static WIDELOAD_DEVICE int32_t Best(const uint32_t* keys, int64_t count) {
    uint64_t best = 0;
    for (int64_t i = device::Lane(); i < count; i += device::kWarp) {
      const uint64_t mine = static_cast<uint64_t>(keys[i]) << 32 | ~static_cast<uint32_t>(i);
      best = mine > best ? mine : best;
    }
    for (int mask = device::kWarp / 2; mask > 0; mask /= 2) {
      const uint64_t other = device::ShuffleXor(best, mask);
      best = other > best ? other : best;
    }
    return static_cast<int32_t>(~static_cast<uint32_t>(best));
  }

  // Marks as taken all experts of groups that are not among the best. A lane has whole groups and
  // looks at each one's experts from another on, so that lanes read different banks.
  static WIDELOAD_DEVICE void TakeOtherGroups(const Args& args, const Row& row) {
    const auto size = static_cast<int32_t>(args.experts / args.num_groups);
    for (int64_t g = device::Lane(); g < args.num_groups; g += device::kWarp) {
      uint32_t largest = kTaken;
      uint32_t second = kTaken;
      int32_t at = static_cast<int32_t>(g) % size;
      for (int32_t i = 0; i < size; ++i) {
        const uint32_t key = row.keys[g * size + at];
        if (++at == size) at = 0;
        const uint32_t smaller = key > largest ? largest : key;
        largest = key > largest ? key : largest;
        second = smaller > second ? smaller : second;
      }
      float score = FromOrderedBits(largest);
      if (args.group_by_two && size > 1) score += FromOrderedBits(second);
      row.groups[g] = OrderedBits(score);
    }
    device::SyncWarp();
    for (int64_t i = 0; i < args.top_groups; ++i) {
      const int32_t best = Best(row.groups, args.num_groups);
      device::SyncWarp();
      if (device::Lane() == 0) row.groups[best] = kTaken;
      device::SyncWarp();
    }
    for (int64_t e = device::Lane(); e < args.experts; e += device::kWarp)
      if (row.groups[e / size] != kTaken) row.keys[e] = kTaken;
    device::SyncWarp();
  }

  // Lane k % 32 has choice k.
  static WIDELOAD_DEVICE void Choose(const Args& args, const Row& row) {
    auto* const ids = reinterpret_cast<int32_t*>(RowOf(args.ids, device::Block()));
    auto* const weights = reinterpret_cast<float*>(RowOf(args.weights, device::Block()));
    float total = 0;
    for (int64_t k = 0; k < args.top_k; ++k) {
      const int32_t best = Best(row.keys, args.experts);
      // A key is read by one lane only.
      if (device::Lane() == best % device::kWarp) row.keys[best] = kTaken;
      if (device::Lane() == k % device::kWarp) ids[k] = best;
      total += row.scores[best];
    }
    const float divisor = total + args.normalize_epsilon;
    for (int64_t k = device::Lane(); k < args.top_k; k += device::kWarp) {
      const float score = row.scores[ids[k]];
      weights[k] = (args.normalize ? device::Divide(score, divisor) : score) * args.scale;
    }
  }
};

inline void Route(device::Stream& stream, const RouterArgs& args, int64_t rows) {
  if (rows == 0) return;
  device::Launch<RouterKernel>(stream,
                               {.blocks = rows,
                                .threads = RouterKernel::kThreads,
                                .shared_bytes = RouterKernel::SharedBytes(args)},
                               args);
}

}  // namespace wideload::compute::cuda
