#include "runtime/start/memory_sums.h"

#include <algorithm>
#include <limits>
#include <string>

#include "base/error.h"
#include "base/memory.h"
#include "kv/block_classes.h"
#include "kv/paged_cache.h"
#include "model/model.h"
#include "runtime/rank.h"

namespace wideload::runtime {
namespace {

// What the KV cache of a rank of the largest stage takes, with all micro-batches; numbers of blocks
// are of one.
class CachePlan {
 public:
  CachePlan(const model::ModelSpec& spec, const EngineOptions& options)
      : num_micro_batches_(options.num_micro_batches),
        limits_{.max_batch_size = options.max_batch_size,
                .max_num_tokens = options.max_num_tokens,
                .num_ranks = options.layout.cp},
        dtype_(compute::PrecisionOf(options.kernels).kv_cache) {
    for (int32_t stage = 0; stage < options.layout.pp; ++stage)
      stages_.push_back(model::CacheShapes(spec, {.size = options.layout.tp},
                                           options.LayersOf(stage, spec.num_layers())));
  }

  uint64_t BytesOf(int64_t num_blocks) const {
    int64_t most = 0;
    for (const auto& layers : stages_) {
      const auto classes =
          kv::BlockClasses(kv::Windows(layers), std::min(num_blocks, kv::kMaxBlocks), limits_);
      most = std::max(most, kv::CacheBytes(layers, classes, dtype_));
    }
    return SaturatingProduct({static_cast<uint64_t>(most), num_micro_batches_});
  }
  int64_t BlocksIn(uint64_t num_bytes) const {
    constexpr uint64_t kMost = std::numeric_limits<int64_t>::max();
    const auto bytes = static_cast<int64_t>(std::min(num_bytes / num_micro_batches_, kMost));
    int64_t blocks = kv::kMaxBlocks;
    for (const auto& layers : stages_)
      blocks = std::min(blocks, kv::BlocksThatFit(layers, limits_, dtype_, bytes));
    return blocks;
  }

 private:
  std::vector<std::vector<kv::LayerCacheShape>> stages_;
  uint64_t num_micro_batches_;
  kv::CacheLimits limits_;
  DType dtype_;
};

// Bytes per rank for keys and values; `wanted` when all requests run at full length.
uint64_t KvBytes(const config::EngineFlags& flags, int32_t num_ranks_here, uint64_t wanted,
                 uint64_t free_bytes) {
  const std::string flag = "--kv-cache-memory";
  const auto ranks = static_cast<uint64_t>(num_ranks_here);
  if (flags.kv_cache_memory.empty()) return std::min(wanted, free_bytes / 2 / ranks);
  const std::string& text = flags.kv_cache_memory;
  const bool is_fraction = text.find_first_not_of("0123456789.") == std::string::npos &&
                           std::count(text.begin(), text.end(), '.') == 1 && text.size() > 1;
  if (!is_fraction) return ParseBytes(text, flag);
  const double fraction = std::stod(text);
  if (!(fraction > 0 && fraction < 1))
    Throw(ErrorKind::kInvalid, "{} is {}; a fraction must be above 0 and below 1", flag,
          flags.kv_cache_memory);
  return static_cast<uint64_t>(static_cast<double>(free_bytes) * fraction /
                               static_cast<double>(ranks));
}

}  // namespace

uint64_t ExchangeBytes(const model::ModelSpec& spec, const EngineOptions& options) {
  if (spec.moe.num_experts == 0) return 0;
  return static_cast<uint64_t>(exchange::SegmentBytes(moe::MakeExchangeShape(
      spec.moe, MakeMoeLayout(spec.moe, options), compute::PrecisionOf(options.kernels))));
}

int64_t SlotBytes(const model::ModelSpec& spec, const ModelBytes& bytes,
                  const EngineOptions& options) {
  if (spec.moe.num_experts == 0) return 0;
  int64_t num_layers = 0;  // of the stage that has most
  for (int32_t stage = 0; stage < options.layout.pp; ++stage)
    num_layers =
        std::max(num_layers, options.MoeLayersOf(stage, spec.num_layers(), spec.moe.layers).size());
  const int64_t num_slots = num_layers * (options.num_slots / options.layout.moe_ep);
  return moe::SlotStoreBytes(SlotOptionsOf(options), num_slots, bytes.expert);
}

namespace {

// Of the ranks that share a context each has some of the rows of an iteration.
uint64_t RowsPerRank(const EngineOptions& options) {
  return static_cast<uint64_t>(
      parallel::ShardOf(options.max_num_tokens, options.layout.cp, 0).size());
}

}  // namespace

std::vector<checkpoint::MemoryPart> MemoryParts(const model::ModelSpec& spec,
                                                const ModelBytes& bytes, const RankPlaces& places,
                                                const EngineOptions& options) {
  const auto ranks = static_cast<uint64_t>(places.num_ranks_here);
  // In microbatch mode experts compute in the middle of an attention.
  const uint64_t scratches = options.moe_mode == moe::MoeMode::kMicrobatch ? 2 : 1;
  const uint64_t token_bytes =
      scratches * static_cast<uint64_t>(model::ScratchBytesPerToken(spec, options.layout.moe_tp));
  // What comes from the stage before, and what comes meanwhile.
  const uint64_t stage_bytes =
      options.layout.pp > 1 ? 2 * sizeof(float) * static_cast<uint64_t>(spec.hidden) : 0;
  const auto vocab_size = static_cast<uint64_t>(spec.vocab_size);
  const int64_t positions = std::min(options.max_seq_len, options.KvTokens());
  constexpr uint64_t kSamplerBytes = 36;  // per id of the vocabulary, in each thread
  return {
      {"weights", static_cast<uint64_t>(bytes.weights), ""},
      {"copied slots",
       SaturatingProduct({ranks, static_cast<uint64_t>(SlotBytes(spec, bytes, options))}),
       "--num-slots"},
      {"KV cache",
       SaturatingProduct({ranks, CachePlan(spec, options).BytesOf(options.num_kv_blocks)}),
       "--kv-cache-memory"},
      {"tables of positions",
       SaturatingProduct({places.are_processes ? ranks : 1, static_cast<uint64_t>(positions),
                          static_cast<uint64_t>(spec.rotary_dim), sizeof(float)}),
       "--max-seq-len"},
      {"buffers",
       SaturatingProduct({ranks, RowsPerRank(options), token_bytes + stage_bytes}) +
           SaturatingProduct(
               {ranks, options.layout.cp == 1 ? 0 : static_cast<uint64_t>(options.max_num_tokens),
                static_cast<uint64_t>(model::ContextBytesPerToken(spec))}),
       "--max-num-tokens"},
      {"logits",
       SaturatingProduct({ranks, static_cast<uint64_t>(options.max_batch_size), vocab_size, 4}),
       "--max-batch-size"},
      {"samplers",
       SaturatingProduct(
           {ranks, static_cast<uint64_t>(options.threads_per_rank), vocab_size, kSamplerBytes}),
       "--threads"},
      {"exchange", SaturatingProduct({ranks, ExchangeBytes(spec, options)}),
       "--moe-max-num-tokens"}};
}

void CheckLayout(const model::ModelSpec& spec, const parallel::Layout& layout) {
  model::CheckTensorParallel(spec, layout.tp);
  model::CheckExpertParts(spec, layout.moe_tp);
}

int64_t PlanMemory(const config::EngineFlags& flags, const model::ModelSpec& spec,
                   const ModelBytes& bytes, const RankPlaces& places,
                   const EngineOptions& options) {
  const uint64_t available = options.device != nullptr
                                 ? static_cast<uint64_t>(options.device->FreeBytes())
                                 : AvailableMemoryBytes();
  const auto ranks = static_cast<uint64_t>(places.num_ranks_here);
  const auto weights = static_cast<uint64_t>(bytes.weights);
  const uint64_t slots =
      SaturatingProduct({ranks, static_cast<uint64_t>(SlotBytes(spec, bytes, options))});
  const uint64_t before_cache = weights + std::min(slots, available);
  const CachePlan cache(spec, options);
  const uint64_t wanted =
      cache.BytesOf(options.max_batch_size * kv::BlocksFor(options.max_seq_len, options.layout.cp));
  const uint64_t kv_bytes = KvBytes(flags, places.num_ranks_here, wanted,
                                    available > before_cache ? available - before_cache : 0);
  const int64_t num_kv_blocks = cache.BlocksIn(kv_bytes);
  if (num_kv_blocks == kv::kMaxBlocks)
    Throw(ErrorKind::kInvalid,
          "--kv-cache-memory gives {} per rank; at most {} blocks of {} tokens, which take {}, are "
          "allowed",
          FormatBytes(kv_bytes), kv::kMaxBlocks, kv::kBlockTokens,
          FormatBytes(cache.BytesOf(kv::kMaxBlocks)));
  EngineOptions planned = options;
  planned.num_kv_blocks = num_kv_blocks;
  // Weights alone may be too much, and then no size of cache is right.
  if (num_kv_blocks < 1 && before_cache < available)
    Throw(ErrorKind::kResource,
          "--kv-cache-memory gives {} per rank; one block of {} tokens needs {}",
          FormatBytes(kv_bytes), kv::kBlockTokens, FormatBytes(cache.BytesOf(1)));
  checkpoint::CheckMemory(MemoryParts(spec, bytes, places, planned), available);
  return num_kv_blocks;
}

}  // namespace wideload::runtime
