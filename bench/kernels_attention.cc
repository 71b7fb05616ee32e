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
constexpr int64_t kNumBytes = int64_t{1} << 30;  // of the cache

// Attention as a layer of a published model does it.
struct AttentionLoad {
  const char* model;
  int64_t q_heads = 0;
  kv::LayerCacheShape cache;
  int64_t value_dim = 0;
  // Of the sequences that fill the cache one of so many has a token: where arithmetic takes long.
  int64_t one_of = 1;
};

constexpr AttentionLoad kLoads[] = {
    {.model = "Qwen3-30B-A3B",
     .q_heads = 32,
     .cache = {.kv_heads = 4, .key_dim = 128, .value_dim = 128},
     .value_dim = 128},
    {.model = "GPT-OSS",
     .q_heads = 64,
     .cache = {.kv_heads = 8, .key_dim = 64, .value_dim = 64},
     .value_dim = 64},
    {.model = "GPT-OSS, windows",
     .q_heads = 64,
     .cache = {.kv_heads = 8, .key_dim = 64, .value_dim = 64, .window = 128},
     .value_dim = 64},
    {.model = "DeepSeek-V3",
     .q_heads = 128,
     .cache = {.kv_heads = 1, .key_dim = 576},
     .value_dim = 512,
     .one_of = 8},
};

// Every block holds the same random keys and values.
void FillCache(const kv::PagedCache& cache) {
  const kv::CacheShape& shape = cache.shape();
  const int64_t width = shape.layers[0].ElementsPerToken();
  const OwnedTensor block = compute::RandomTensor(shape.dtype, {kv::kBlockTokens, width}, 3);
  for (int64_t b = 0; b < shape.classes[0].num_blocks; ++b) {
    const std::span<std::byte> out = cache.Block(0, static_cast<int32_t>(b));
    std::memcpy(out.data(), block.view().raw(), out.size());
  }
}

// A cache of kNumBytes, full of sequences of kContext tokens, of which some have one more to look
// back at them.
class AttentionWork {
 public:
  explicit AttentionWork(const AttentionLoad& load)
      : load_(load),
        blocks_each_(kContext / kv::kBlockTokens),
        num_sequences_(kNumBytes / (2 * kContext * load.cache.ElementsPerToken())),
        cache_({.layers = {load.cache},
                .classes = {{.window = load.cache.window,
                             .num_blocks = num_sequences_ * blocks_each_}}}),
        blocks_(static_cast<size_t>(num_sequences_ * blocks_each_)),
        num_rows_((num_sequences_ + load.one_of - 1) / load.one_of),
        q_(compute::RandomTensor(DType::kF32, {num_rows_, load.q_heads * load.cache.key_dim}, 4)),
        y_(DType::kBF16, {num_rows_, load.q_heads * load.value_dim}) {
    FillCache(cache_);
    std::iota(blocks_.begin(), blocks_.end(), 0);
    for (int64_t row = 0; row < num_rows_; ++row) {
      const auto first = static_cast<size_t>(row * load.one_of * blocks_each_);
      sequences_.push_back(
          {.first_row = row,
           .num_tokens = 1,
           .start_position = kContext - 1,
           .blocks = std::span(blocks_).subspan(first, static_cast<size_t>(blocks_each_))});
    }
    if (load.cache.window > 0) sinks_.assign(static_cast<size_t>(load.q_heads), 1.0F);
  }

  void Print() const {
    fmt::print("{}: a token of each of {} sequences, {} query and {} KV heads of {}\n", load_.model,
               sequences_.size(), load_.q_heads, load_.cache.kv_heads, load_.cache.key_dim);
  }
  std::span<const std::byte> bytes() const {
    return {cache_.Block(0, 0).data(), static_cast<size_t>(cache_.shape().num_bytes())};
  }
  // Of keys and values that are looked at.
  double SeenBytes() const {
    const int64_t seen = load_.cache.window > 0 ? load_.cache.window : kContext;
    return 2.0 * static_cast<double>(seen * load_.cache.ElementsPerToken()) *
           static_cast<double>(sequences_.size());
  }
  void Run(const Exec& exec) const {
    const compute::AttentionShape shape{.q_heads = load_.q_heads,
                                        .kv_heads = load_.cache.kv_heads,
                                        .key_dim = load_.cache.key_dim,
                                        .value_dim = load_.value_dim,
                                        .scale = 0.09F,
                                        .window = load_.cache.window,
                                        .sinks = sinks_};
    compute::PagedAttention(exec, shape, q_.view(), sequences_, {cache_.Keys(0), cache_.Values(0)},
                            y_.view());
  }

 private:
  const AttentionLoad& load_;
  int64_t blocks_each_;
  int64_t num_sequences_;
  kv::PagedCache cache_;
  std::vector<int32_t> blocks_;
  int64_t num_rows_;
  std::vector<KvSequence> sequences_;
  OwnedTensor q_;
  OwnedTensor y_;
  std::vector<float> sinks_;
};

}  // namespace

void MeasureAttention(const KernelsOptions& options) {
  ThreadPool pool("bench", options.threads);
  const Clock clock = ClockFor(options.threads);
  fmt::print("\nattention over {} positions; 1 GiB of keys and values\n", kContext);
  for (const AttentionLoad& load : kLoads) {
    const AttentionWork work(load);
    work.Print();
    fmt::print("kernels       GB/s of KV    plain reading    share [min-max]\n");
    for (const KernelSet kernels : options.kernels) {
      if (kernels == KernelSet::kReference) continue;  // its cache is in fp32
      const Exec exec{.kernels = kernels, .pool = &pool};
      std::vector<double> rates, reads, shares;
      for (int i = 0; i < options.repetitions; ++i) {
        reads.push_back(ReadGbytes(work.bytes(), pool, clock));
        const double start = clock.Seconds();
        work.Run(exec);
        rates.push_back(work.SeenBytes() / (clock.Seconds() - start) * 1e-9);
        shares.push_back(rates.back() / reads.back());
      }
      const auto [least, most] = std::minmax_element(shares.begin(), shares.end());
      fmt::print("{:<12} {:>11.1f} {:>16.1f}    {:>5.1f} % [{:.0f}-{:.0f}]\n",
                 compute::KernelSetName(kernels), Median(rates), Median(reads),
                 100 * Median(shares), 100 * *least, 100 * *most);
    }
  }
}

}  // namespace wideload::bench
