#include "engine_flags.h"

#include <algorithm>
#include <limits>

#include "base/cpu_info.h"
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "checkpoint/memory_plan.h"
#include "config/layout_flags.h"
#include "kv/block_classes.h"
#include "option_flags.h"
#include "statistics/eplb_yaml.h"

namespace wideload::apps {
namespace {

// What the KV cache of a rank of the largest stage takes, with all micro-batches; numbers of blocks
// are of one.
class CachePlan {
 public:
  CachePlan(const model::ModelSpec& spec, const runtime::EngineOptions& options)
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
uint64_t KvBytes(const EngineFlags& flags, int32_t num_ranks_here, uint64_t wanted,
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

int64_t ContextLength(const EngineFlags& flags, const checkpoint::ModelConfig& config) {
  if (flags.max_seq_len == 0) return config.max_position_embeddings;
  if (flags.max_seq_len > config.max_position_embeddings)
    Throw(ErrorKind::kInvalid,
          "--max-seq-len is {}; the model's context is {} (max_position_embeddings)",
          flags.max_seq_len, config.max_position_embeddings);
  return flags.max_seq_len;
}

std::vector<eplb::Placement> FilePlacements(const statistics::EplbConfig& file,
                                            const EngineFlags& flags,
                                            const checkpoint::ModelConfig& c, int32_t num_ranks) {
  const statistics::EplbTarget target{.num_experts = static_cast<int32_t>(c.num_experts),
                                      .ep_size = num_ranks,
                                      .layers = c.moe_layers};
  statistics::CheckEplbConfig(file, target, flags.placement);
  std::vector<eplb::Placement> placements;
  for (const int32_t layer : target.layers)
    placements.push_back(statistics::LayerPlacement(file, layer, target, flags.placement));
  return placements;
}

// What a placement file says. With num_slots 0 it switches balancing off: one slot per expert.
void TakePlacementFile(const EngineFlags& flags, const checkpoint::ModelConfig& c,
                       runtime::EngineOptions& options) {
  if (!FileExists(flags.placement))
    Throw(ErrorKind::kNotFound,
          "--placement is {}: no such file; allowed: contiguous, random:SEED, or an EPLB YAML file",
          flags.placement);
  const statistics::EplbConfig file = statistics::ReadEplbYaml(flags.placement);
  if (flags.num_slots > 0 && flags.num_slots != file.num_slots)
    Throw(ErrorKind::kInvalid, "--num-slots is {}; {} has num_slots {}", flags.num_slots,
          flags.placement, file.num_slots);
  if (file.num_slots == 0) {
    options.rebalance.mode = rebalance::Mode::kOff;
    return;
  }
  options.num_slots = file.num_slots;
  options.placements = FilePlacements(file, flags, c, options.layout.moe_ep);
  if (flags.layer_updates_per_iter > 0 || file.layer_updates_per_iter == 0) return;
  options.rebalance.layer_updates_per_iter = file.layer_updates_per_iter;
  if (flags.rebalance.empty()) options.rebalance.mode = rebalance::Mode::kRepair;
}

// "contiguous", "random:SEED" or an EPLB YAML file. Sets num_slots and one placement per MoE layer.
void ResolvePlacement(const EngineFlags& flags, const checkpoint::ModelConfig& c,
                      runtime::EngineOptions& options) {
  const auto num_experts = static_cast<int32_t>(c.num_experts);
  if (c.NumMoeLayers() == 0) {
    const auto refuse = [](std::string_view flag, const auto& value) {
      Throw(ErrorKind::kInvalid, "{} is {}; this model has no MoE layer", flag, value);
    };
    if (flags.num_slots > 0) refuse("--num-slots", flags.num_slots);
    if (flags.placement != "contiguous") refuse("--placement", flags.placement);
    if (options.rebalance.mode != rebalance::Mode::kOff) refuse("--rebalance", flags.rebalance);
    return;
  }
  options.num_slots = flags.num_slots > 0 ? flags.num_slots : num_experts;
  if (flags.placement != "contiguous" && !flags.placement.starts_with("random:"))
    return TakePlacementFile(flags, c, options);
  const int32_t num_ranks = options.layout.moe_ep;
  eplb::ValidateSizes(num_experts, options.num_slots, num_ranks, "--num-slots");
  if (options.num_slots > int64_t{num_experts} * num_ranks)
    Throw(ErrorKind::kInvalid,
          "--num-slots is {}; at most {} are allowed: {} (experts) x {} (ranks), with which every "
          "rank holds every expert",
          options.num_slots, int64_t{num_experts} * num_ranks, num_experts, num_ranks);
  if (flags.placement == "contiguous") return;
  const std::string seed_text = flags.placement.substr(std::string("random:").size());
  if (seed_text.empty() || seed_text.size() > 18 ||
      seed_text.find_first_not_of("0123456789") != std::string::npos)
    Throw(ErrorKind::kInvalid,
          "--placement is {}; allowed: contiguous, random:SEED (a number), or an EPLB YAML file",
          flags.placement);
  const uint64_t seed = std::stoull(seed_text);
  for (int64_t i = 0; i < c.NumMoeLayers(); ++i)
    options.placements.push_back(eplb::RandomPlacement(num_experts, options.num_slots, num_ranks,
                                                       seed * 1000003 + static_cast<uint64_t>(i)));
}

// Calls `parse`; an Error it throws names the flag.
template <class Parse>
auto OfFlag(std::string_view flag, const Parse& parse) {
  try {
    return parse();
  } catch (const Error& e) {
    Throw(e.kind(), "{}: {}", flag, e.what());
  }
}

int64_t MigrationBandwidth(const EngineFlags& flags) {
  if (flags.migration_bandwidth.empty()) return 0;
  const std::string flag = "--migration-bandwidth";
  const uint64_t bytes = ParseBytes(flags.migration_bandwidth, flag);
  // A rank that copies nothing for seconds is taken for lost.
  constexpr uint64_t kLeast = uint64_t{1} << 20;
  if (bytes < kLeast || bytes > uint64_t{1} << 50)
    Throw(ErrorKind::kInvalid, "{} is {}; at least 1M and at most 1024T are allowed", flag,
          flags.migration_bandwidth);
  return static_cast<int64_t>(bytes);
}

// All but what a placement file adds.
rebalance::OnlineOptions RebalanceOptions(const EngineFlags& flags) {
  rebalance::OnlineOptions options{
      .is_waiting = flags.waits_for_plans,
      .layer_updates_per_iter = std::max(1, flags.layer_updates_per_iter),
      .max_fetched_slots_per_iter = flags.max_fetched_slots_per_iter};
  if (!flags.rebalance.empty())
    rebalance::ParseMode(flags.rebalance, "--rebalance", options);
  else if (flags.layer_updates_per_iter > 0)
    options.mode = rebalance::Mode::kRepair;
  return options;
}

// In a file of TensorRT-LLM layer_updates_per_iter switches balancing on, whatever plans it; who
// gives a number on the command line wants it to count.
void RefuseIdleNumbers(const EngineFlags& flags, const rebalance::OnlineOptions& options) {
  const auto refuse = [&](const char* option, rebalance::Mode mode) {
    const auto source = flags.sources.find(option);
    if (options.mode == mode || source == flags.sources.end() || source->second != "command line")
      return;
    Throw(ErrorKind::kInvalid, "{} has an effect with --rebalance {} only; the balancer is {}",
          option, rebalance::ModeName(mode), rebalance::ModeName(options.mode));
  };
  refuse("--layer-updates-per-iter", rebalance::Mode::kTensorRtLlm);
  refuse("--max-fetched-slots-per-iter", rebalance::Mode::kRepair);
}

}  // namespace

void AddEngineFlags(Command command, EngineFlags& flags) {
  for (const config::Group group :
       {config::Group::kModel, config::Group::kLayout, config::Group::kStatistics})
    AddOptions(command, group, flags);
}

RankPlaces ThreadPlaces(const EngineFlags& flags) {
  const parallel::Layout layout = config::ResolveLayout(flags, 0);
  return {.layout = layout,
          .num_ranks_here = layout.world(),
          .cores_per_rank = std::max(1, NumAllowedCpus() / layout.world())};
}

runtime::EngineOptions ResolveOptions(const EngineFlags& flags,
                                      const checkpoint::ModelConfig& config,
                                      const RankPlaces& places) {
  runtime::EngineOptions options;
  options.kernels = OfFlag("--kernels", [&] { return compute::ParseKernelSet(flags.kernels); });
  options.layout = places.layout;
  options.stage_layers = config::StageSizes(flags);
  options.num_micro_batches = config::NumMicroBatches(flags);
  options.threads_per_rank = flags.threads > 0 ? flags.threads : places.cores_per_rank;
  options.max_num_tokens = flags.max_num_tokens;
  options.max_batch_size = flags.max_batch_size;
  options.max_seq_len = ContextLength(flags, config);
  options.prefix_cache = flags.enable_prefix_caching;
  options.split = OfFlag("--split", [&] { return eplb::ParseSplitMode(flags.split); });
  options.moe_max_num_tokens = flags.moe_max_num_tokens;
  options.moe_mode = OfFlag("--moe-mode", [&] { return moe::ParseMoeMode(flags.moe_mode); });
  options.slot_storage =
      OfFlag("--slot-storage", [&] { return moe::ParseSlotStorage(flags.slot_storage); });
  options.num_spare_slots = flags.num_spare_slots;
  options.migration_bytes_per_second = MigrationBandwidth(flags);
  options.verify_slots = flags.verify_slots;
  options.logs_iterations = flags.print_iter_log;
  options.deadline = std::chrono::milliseconds(static_cast<int64_t>(flags.deadline_s * 1e3));
  options.rebalance = RebalanceOptions(flags);
  ResolvePlacement(flags, config, options);
  if (options.rebalance.mode == rebalance::Mode::kRepair &&
      options.split == eplb::SplitMode::kFirst)
    Throw(ErrorKind::kInvalid,
          "--split is first, which uses no second slot of an expert; --rebalance repair plans for "
          "optimal and round_robin");
  // Ranks that wait for each other in attention serve nobody's rows meanwhile.
  const bool are_contexts_shared = options.layout.cp > 1;
  if (options.moe_mode == moe::MoeMode::kMicrobatch &&
      (options.layout.tp > 1 || are_contexts_shared))
    Throw(ErrorKind::kUnsupported,
          "--moe-mode is microbatch and {} is {}; ranks that share attention run their MoE layers "
          "with --moe-mode barrier",
          are_contexts_shared ? "--cp" : "--tp",
          are_contexts_shared ? options.layout.cp : options.layout.tp);
  if (options.moe_mode == moe::MoeMode::kMicrobatch && options.layout.moe_tp > 1)
    Throw(ErrorKind::kUnsupported,
          "--moe-mode is microbatch and --moe-tp is {}; ranks that divide experts compute the same "
          "rows at the same time, which --moe-mode barrier gives them",
          options.layout.moe_tp);
  RefuseIdleNumbers(flags, options.rebalance);
  return options;
}

uint64_t ExchangeBytes(const model::ModelSpec& spec, const runtime::EngineOptions& options) {
  if (spec.moe.num_experts == 0) return 0;
  return static_cast<uint64_t>(exchange::SegmentBytes(moe::MakeExchangeShape(
      spec.moe, runtime::MakeMoeLayout(spec.moe, options), compute::PrecisionOf(options.kernels))));
}

int64_t SlotBytes(const model::ModelSpec& spec, const ModelBytes& bytes,
                  const runtime::EngineOptions& options) {
  if (spec.moe.num_experts == 0) return 0;
  int64_t num_layers = 0;  // of the stage that has most
  for (int32_t stage = 0; stage < options.layout.pp; ++stage)
    num_layers =
        std::max(num_layers, options.MoeLayersOf(stage, spec.num_layers(), spec.moe.layers).size());
  const int64_t num_slots = num_layers * (options.num_slots / options.layout.moe_ep);
  return moe::SlotStoreBytes(runtime::SlotOptionsOf(options), num_slots, bytes.expert);
}

// Of the ranks that share a context each has some of the rows of an iteration.
uint64_t RowsPerRank(const runtime::EngineOptions& options) {
  return static_cast<uint64_t>(
      parallel::ShardOf(options.max_num_tokens, options.layout.cp, 0).size());
}

std::vector<checkpoint::MemoryPart> MemoryParts(const model::ModelSpec& spec,
                                                const ModelBytes& bytes, const RankPlaces& places,
                                                const runtime::EngineOptions& options) {
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

int64_t PlanMemory(const EngineFlags& flags, const model::ModelSpec& spec, const ModelBytes& bytes,
                   const RankPlaces& places, const runtime::EngineOptions& options) {
  const uint64_t available = AvailableMemoryBytes();
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
  runtime::EngineOptions planned = options;
  planned.num_kv_blocks = num_kv_blocks;
  // Weights alone may be too much, and then no size of cache is right.
  if (num_kv_blocks < 1 && before_cache < available)
    Throw(ErrorKind::kResource,
          "--kv-cache-memory gives {} per rank; one block of {} tokens needs {}",
          FormatBytes(kv_bytes), kv::kBlockTokens, FormatBytes(cache.BytesOf(1)));
  checkpoint::CheckMemory(MemoryParts(spec, bytes, places, planned), available);
  return num_kv_blocks;
}

std::vector<runtime::Fact> FlagFacts(const EngineFlags& flags) {
  std::vector<runtime::Fact> facts;
  for (const config::OptionRow& row : config::OptionTable()) {
    const bool is_file = row.agreement == config::Agreement::kAlikeFile;
    if (!is_file && row.agreement != config::Agreement::kAlike) continue;
    std::string value = ValueText(row, flags);
    if (is_file && FileExists(value))
      value = "a file with the fingerprint " + runtime::Fingerprint(ReadFile(value));
    facts.push_back({std::string(LongName(row)), std::move(value)});
  }
  return facts;
}

}  // namespace wideload::apps
