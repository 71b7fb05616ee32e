#include "runtime/start/resolve_options.h"

#include <algorithm>

#include "base/cpu_info.h"
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "config/layout_flags.h"
#include "config/option_table.h"
#include "statistics/eplb_yaml.h"

namespace wideload::runtime {
namespace {

int64_t ContextLength(const config::EngineFlags& flags, const checkpoint::ModelConfig& config) {
  if (flags.max_seq_len == 0) return config.max_position_embeddings;
  if (flags.max_seq_len > config.max_position_embeddings)
    Throw(ErrorKind::kInvalid,
          "--max-seq-len is {}; the model's context is {} (max_position_embeddings)",
          flags.max_seq_len, config.max_position_embeddings);
  return flags.max_seq_len;
}

std::vector<eplb::Placement> FilePlacements(const statistics::EplbConfig& file,
                                            const config::EngineFlags& flags,
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
void TakePlacementFile(const config::EngineFlags& flags, const checkpoint::ModelConfig& c,
                       EngineOptions& options) {
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
void ResolvePlacement(const config::EngineFlags& flags, const checkpoint::ModelConfig& c,
                      EngineOptions& options) {
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

int64_t MigrationBandwidth(const config::EngineFlags& flags) {
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
rebalance::OnlineOptions RebalanceOptions(const config::EngineFlags& flags) {
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

bool IsOfCommandLine(const config::EngineFlags& flags, const char* option) {
  const auto source = flags.sources.find(option);
  return source != flags.sources.end() && source->second == "command line";
}

// In a file of TensorRT-LLM layer_updates_per_iter switches balancing on, whatever plans it; who
// gives a number on the command line wants it to count.
void RefuseIdleNumbers(const config::EngineFlags& flags, const rebalance::OnlineOptions& options) {
  const auto refuse = [&](const char* option, rebalance::Mode mode) {
    if (options.mode == mode || !IsOfCommandLine(flags, option)) return;
    Throw(ErrorKind::kInvalid, "{} has an effect with --rebalance {} only; the balancer is {}",
          option, rebalance::ModeName(mode), rebalance::ModeName(options.mode));
  };
  refuse("--layer-updates-per-iter", rebalance::Mode::kTensorRtLlm);
  refuse("--max-fetched-slots-per-iter", rebalance::Mode::kRepair);
}

// Likewise: a file may say how long prompts wait, and that they do not.
PromptBalanceOptions PromptBalanceOf(const config::EngineFlags& flags,
                                     const parallel::Layout& layout) {
  if (layout.dp == 1 && IsOfCommandLine(flags, "--attention-dp-balance"))
    Throw(ErrorKind::kInvalid,
          "--attention-dp-balance has an effect with several groups of requests only; here is one");
  for (const char* const option :
       {"--attention-dp-timeout-iters", "--attention-dp-batching-wait-iters"})
    if (!flags.attention_dp_balance && IsOfCommandLine(flags, option))
      Throw(ErrorKind::kInvalid, "{} has an effect with --attention-dp-balance only", option);
  return {.enable_balance = flags.attention_dp_balance,
          .timeout_iters = flags.attention_dp_timeout_iters,
          .batching_wait_iters = flags.attention_dp_batching_wait_iters};
}

}  // namespace

RankPlaces ThreadPlaces(const config::EngineFlags& flags) {
  const parallel::Layout layout = config::ResolveLayout(flags, 0);
  return {.layout = layout,
          .num_ranks_here = layout.world(),
          .cores_per_rank = std::max(1, NumAllowedCpus() / layout.world())};
}

EngineOptions ResolveOptions(const config::EngineFlags& flags,
                             const checkpoint::ModelConfig& config, const RankPlaces& places) {
  EngineOptions options;
  options.kernels = OfFlag("--kernels", [&] { return compute::ParseKernelSet(flags.kernels); });
  options.layout = places.layout;
  options.stage_layers = config::StageSizes(flags);
  options.num_micro_batches = config::NumMicroBatches(flags);
  options.threads_per_rank = flags.threads > 0 ? flags.threads : places.cores_per_rank;
  options.max_num_tokens = flags.max_num_tokens;
  options.max_batch_size = flags.max_batch_size;
  options.max_seq_len = ContextLength(flags, config);
  options.prefix_cache = flags.enable_prefix_caching;
  options.prompt_balance = PromptBalanceOf(flags, options.layout);
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

std::vector<Fact> FlagFacts(const config::EngineFlags& flags) {
  std::vector<Fact> facts;
  for (const config::OptionRow& row : config::OptionTable()) {
    const bool is_file = row.agreement == config::Agreement::kAlikeFile;
    if (!is_file && row.agreement != config::Agreement::kAlike) continue;
    std::string value = ValueText(row, flags);
    if (is_file && FileExists(value))
      value = "a file with the fingerprint " + Fingerprint(ReadFile(value));
    facts.push_back({std::string(LongName(row)), std::move(value)});
  }
  return facts;
}

}  // namespace wideload::runtime
