#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "compute/ops.h"
#include "compute/testing.h"
#include "core_bounds.h"
#include "kernels_parts.h"
#include "kv/paged_cache.h"

namespace wideload::bench {
namespace {

using compute::Exec;
using compute::KernelSet;
using compute::KvSequence;
using compute::OwnedTensor;

constexpr int64_t kContext = 8192;
constexpr int64_t kSequences = 64;  // their keys and values fill 1 GiB
constexpr int64_t kQHeads = 32;
constexpr int64_t kKvHeads = 4;
constexpr int64_t kHeadDim = 128;

// Blocks of one part of the cache, in which the first block is repeated.
void FillCache(const TensorView& part) {
  const OwnedTensor block =
      compute::RandomTensor(DType::kBF16, {kKvHeads * kv::kBlockTokens, kHeadDim}, 3);
  auto* out = static_cast<std::byte*>(part.raw_mutable());
  for (int64_t b = 0; b < part.dim(0); ++b)
    std::memcpy(out + b * part.row_bytes(), block.view().raw(),
                static_cast<size_t>(part.row_bytes()));
}

}  // namespace

void MeasureAttention(const KernelsOptions& options) {
  ThreadPool pool("bench", options.threads);
  const Clock clock = ClockFor(options.threads);
  const int64_t blocks_each = kContext / kv::kBlockTokens;
  const int64_t num_blocks = kSequences * blocks_each;
  const Shape part{num_blocks, kKvHeads, kv::kBlockTokens, kHeadDim};
  Buffer memory(2 * part.num_elements() * DTypeBytes(DType::kBF16));
  const std::span<std::byte> bytes(memory.data(), static_cast<size_t>(memory.num_bytes()));
  const compute::PagedKv cache{TensorView(DType::kBF16, part, bytes.data()),
                               TensorView(DType::kBF16, part, bytes.data() + bytes.size() / 2)};
  FillCache(cache.keys);
  FillCache(cache.values);
  std::vector<int32_t> blocks(static_cast<size_t>(num_blocks));
  std::iota(blocks.begin(), blocks.end(), 0);
  std::vector<KvSequence> sequences;
  for (int64_t s = 0; s < kSequences; ++s)
    sequences.push_back({.first_row = s,
                         .num_tokens = 1,
                         .start_position = kContext - 1,
                         .blocks = std::span(blocks).subspan(static_cast<size_t>(s * blocks_each),
                                                             static_cast<size_t>(blocks_each))});
  const OwnedTensor q = compute::RandomTensor(DType::kF32, {kSequences, kQHeads * kHeadDim}, 4);
  const OwnedTensor y(DType::kBF16, {kSequences, kQHeads * kHeadDim});
  const compute::AttentionShape shape{.q_heads = kQHeads,
                                      .kv_heads = kKvHeads,
                                      .key_dim = kHeadDim,
                                      .value_dim = kHeadDim,
                                      .scale = 0.09F};
  fmt::print(
      "\nattention: a token of each of {} sequences over {} positions, {} query and {} KV heads of "
      "{}, 1 GiB\n",
      kSequences, kContext, kQHeads, kKvHeads, kHeadDim);
  fmt::print("kernels       GB/s of KV    plain reading    share [min-max]\n");
  for (const KernelSet kernels : options.kernels) {
    if (kernels == KernelSet::kReference) continue;  // its cache is in fp32
    const Exec exec{.kernels = kernels, .pool = &pool};
    std::vector<double> rates, reads, shares;
    for (int i = 0; i < options.repetitions; ++i) {
      reads.push_back(ReadGbytes(bytes, pool, clock));
      const double start = clock.Seconds();
      compute::PagedAttention(exec, shape, q.view(), sequences, cache, y.view());
      rates.push_back(static_cast<double>(bytes.size()) / (clock.Seconds() - start) * 1e-9);
      shares.push_back(rates.back() / reads.back());
    }
    const auto [least, most] = std::minmax_element(shares.begin(), shares.end());
    fmt::print("{:<12} {:>11.1f} {:>16.1f}    {:>5.1f} % [{:.0f}-{:.0f}]\n",
               compute::KernelSetName(kernels), Median(rates), Median(reads), 100 * Median(shares),
               100 * *least, 100 * *most);
  }
}

}  // namespace wideload::bench
