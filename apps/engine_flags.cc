#include "engine_flags.h"

#include <algorithm>

#include "base/cpu_info.h"
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "checkpoint/memory_plan.h"
#include "kv/paged_cache.h"
#include "statistics/eplb_yaml.h"

namespace wideload::apps {
namespace {

// Bytes per rank for keys and values.
uint64_t KvBytes(const EngineFlags& flags, const runtime::EngineOptions& options,
                 int32_t num_ranks_here, uint64_t bytes_per_block, uint64_t free_bytes) {
  const std::string flag = "--kv-cache-memory";
  const auto wanted =
      static_cast<uint64_t>(options.max_batch_size * kv::BlocksFor(options.max_seq_len)) *
      bytes_per_block;
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
  statistics::EplbTarget target{.num_experts = static_cast<int32_t>(c.num_experts),
                                .ep_size = num_ranks};
  for (int64_t layer = 0; layer < c.num_layers; ++layer)
    if (c.IsMoeLayer(layer)) target.layers.push_back(static_cast<int32_t>(layer));
  statistics::CheckEplbConfig(file, target, flags.placement);
  std::vector<eplb::Placement> placements;
  for (const int32_t layer : target.layers)
    placements.push_back(statistics::LayerPlacement(file, layer, target, flags.placement));
  return placements;
}

// "contiguous", "random:SEED" or an EPLB YAML file. Sets num_slots and one placement per MoE layer.
void ResolvePlacement(const EngineFlags& flags, const checkpoint::ModelConfig& c,
                      runtime::EngineOptions& options) {
  const auto num_experts = static_cast<int32_t>(c.num_experts);
  options.num_slots = flags.num_slots > 0 ? flags.num_slots : num_experts;
  if (c.NumMoeLayers() == 0) {
    if (options.num_ranks > 1 || flags.num_slots > 0)
      Throw(ErrorKind::kInvalid, "--ep is {} and --num-slots is {}; this model has no MoE layer",
            options.num_ranks, flags.num_slots);
    if (num_experts == 0) return;
  }
  const bool is_file = flags.placement != "contiguous" && !flags.placement.starts_with("random:");
  if (is_file) {
    if (!FileExists(flags.placement))
      Throw(
          ErrorKind::kNotFound,
          "--placement is {}: no such file; allowed: contiguous, random:SEED, or an EPLB YAML file",
          flags.placement);
    const statistics::EplbConfig file = statistics::ReadEplbYaml(flags.placement);
    if (flags.num_slots > 0 && flags.num_slots != file.num_slots)
      Throw(ErrorKind::kInvalid, "--num-slots is {}; {} has num_slots {}", flags.num_slots,
            flags.placement, file.num_slots);
    if (file.layer_updates_per_iter > 0)
      Throw(
          ErrorKind::kUnsupported,
          "{}: layer_updates_per_iter is {}; placements do not change while serving here: allowed "
          "is 0 (a static placement)",
          flags.placement, file.layer_updates_per_iter);
    options.num_slots = file.num_slots;
    options.placements = FilePlacements(file, flags, c, options.num_ranks);
    return;
  }
  eplb::ValidateSizes(num_experts, options.num_slots, options.num_ranks, "--num-slots");
  if (flags.placement == "contiguous") return;
  const std::string seed_text = flags.placement.substr(std::string("random:").size());
  if (seed_text.empty() || seed_text.size() > 18 ||
      seed_text.find_first_not_of("0123456789") != std::string::npos)
    Throw(ErrorKind::kInvalid,
          "--placement is {}; allowed: contiguous, random:SEED (a number), or an EPLB YAML file",
          flags.placement);
  const uint64_t seed = std::stoull(seed_text);
  for (int64_t i = 0; i < c.NumMoeLayers(); ++i)
    options.placements.push_back(eplb::RandomPlacement(num_experts, options.num_slots,
                                                       options.num_ranks,
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

void AddLayoutFlags(Command command, EngineFlags& flags) {
  command
      .Add("--ep", flags.num_ranks,
           "ranks, each with its own requests and share of the experts: threads of this "
           "process; under mpirun or srun its processes (default: these, else 1)")
      .Range(1, 1024);
  command
      .Add("--num-slots", flags.num_slots,
           "expert slots over all ranks, a multiple of --ep (default: one per expert)")
      .Positive();
  command.Add("--placement", flags.placement, "contiguous, random:SEED, or an EPLB YAML file")
      .ShowDefault();
  command.Add("--split", flags.split, "which replica takes a token: optimal, round_robin or first")
      .ShowDefault();
  command
      .Add("--moe-max-num-tokens", flags.moe_max_num_tokens,
           "tokens of all ranks that go through an MoE layer at once (default: all)")
      .Positive();
  command
      .Add("--deadline", flags.deadline_s,
           "seconds that a rank waits for another, while none gets on with its work, before the "
           "run ends")
      .Range(0.1, 86400.0)
      .ShowDefault();

  command.Add(
      "--expert-statistic-path", flags.statistic_path,
      "folder to record routed counts into, in TensorRT-LLM's format (or EXPERT_STATISTIC_PATH)");
  command.Add(
      "--expert-statistic-iter-range", flags.statistic_iter_range,
      "iterations A-B to record, B excluded (or EXPERT_STATISTIC_ITER_RANGE; default: all)");
  command.Add("--replace-expert-statistics", flags.replace_statistics,
              "replace the folder when it holds another run's statistics");
}

}  // namespace

void AddEngineFlags(Command command, EngineFlags& flags) {
  command.Add("-m,--model", flags.model,
              "Hugging Face folder (default: the embedded model wideload-14m)");
  command.Add("--threads", flags.threads, "threads of a rank (default: cores / ranks)")
      .Range(1, 4096);
  command.Add("--kernels", flags.kernels, "auto, reference, avx2, avx512, avx512_bf16 or amx")
      .ShowDefault();
  command
      .Add("--max-seq-len", flags.max_seq_len,
           "tokens of one request, prompt and generated (default: the model's context)")
      .Positive();
  command.Add("--kv-cache-memory", flags.kv_cache_memory,
              "KV cache of a rank: a size (64M) or a fraction of the free memory shared by the "
              "ranks (0.5)");
  command.Add("--max-num-tokens", flags.max_num_tokens, "tokens a rank computes in an iteration")
      .Range(int64_t{1}, int64_t{1} << 20)
      .ShowDefault();
  command.Add("--max-batch-size", flags.max_batch_size, "requests running on a rank")
      .Range(int64_t{1}, int64_t{1} << 16)
      .ShowDefault();
  command.Add("--check-weights", flags.check_weights,
              "look at every weight before the start and refuse NaN and infinity");
  AddLayoutFlags(command, flags);
}

RankPlaces ThreadPlaces(const EngineFlags& flags) {
  const int32_t num_ranks = std::max(1, flags.num_ranks);
  return {.num_ranks = num_ranks,
          .num_ranks_here = num_ranks,
          .cores_per_rank = std::max(1, NumAllowedCpus() / num_ranks)};
}

runtime::EngineOptions ResolveOptions(const EngineFlags& flags,
                                      const checkpoint::ModelConfig& config,
                                      const RankPlaces& places) {
  if (places.are_processes && flags.num_ranks != 0 && flags.num_ranks != places.num_ranks)
    Throw(ErrorKind::kInvalid,
          "--ep is {}; {} processes were started together and each is a rank: leave --ep away, or "
          "start {} processes",
          flags.num_ranks, places.num_ranks, flags.num_ranks);
  runtime::EngineOptions options;
  options.kernels = OfFlag("--kernels", [&] { return compute::ParseKernelSet(flags.kernels); });
  options.num_ranks = places.num_ranks;
  options.threads_per_rank = flags.threads > 0 ? flags.threads : places.cores_per_rank;
  options.max_num_tokens = flags.max_num_tokens;
  options.max_batch_size = flags.max_batch_size;
  options.max_seq_len = ContextLength(flags, config);
  options.split = OfFlag("--split", [&] { return eplb::ParseSplitMode(flags.split); });
  options.moe_max_num_tokens = flags.moe_max_num_tokens;
  options.deadline = std::chrono::milliseconds(static_cast<int64_t>(flags.deadline_s * 1e3));
  ResolvePlacement(flags, config, options);
  return options;
}

uint64_t ExchangeBytes(const checkpoint::ModelConfig& c, const runtime::EngineOptions& options) {
  if (c.num_experts == 0) return 0;
  const moe::MoeShape shape{
      .hidden = c.hidden_size, .num_experts = c.num_experts, .top_k = c.top_k};
  const moe::MoeLayout layout{
      .num_ranks = options.num_ranks,
      .num_slots = options.num_slots,
      .chunk_tokens =
          moe::ChunkTokens(options.moe_max_num_tokens, options.num_ranks, options.max_num_tokens)};
  return static_cast<uint64_t>(exchange::SegmentBytes(
      moe::MakeExchangeShape(shape, layout, compute::PrecisionOf(options.kernels))));
}

int64_t PlanMemory(const EngineFlags& flags, const model::Family& family,
                   const checkpoint::ModelConfig& c, const RankPlaces& places,
                   const runtime::EngineOptions& options) {
  const uint64_t available = AvailableMemoryBytes();
  const auto weights = static_cast<uint64_t>(family.weight_bytes(c, options.kernels));
  const kv::LayerCacheShape layer{
      .kv_heads = c.num_kv_heads, .key_dim = c.head_dim, .value_dim = c.head_dim};
  const kv::CacheShape block{.layers = std::vector(static_cast<size_t>(c.num_layers), layer),
                             .num_blocks = 1,
                             .dtype = compute::PrecisionOf(options.kernels).kv_cache};
  const auto block_bytes = static_cast<uint64_t>(block.BytesPerBlock());
  const uint64_t kv_bytes = KvBytes(flags, options, places.num_ranks_here, block_bytes,
                                    available > weights ? available - weights : 0);
  const auto num_kv_blocks = static_cast<int64_t>(kv_bytes / block_bytes);
  if (num_kv_blocks < 1)
    Throw(ErrorKind::kResource,
          "--kv-cache-memory gives {} per rank; one block of {} tokens needs {}",
          FormatBytes(kv_bytes), kv::kBlockTokens, FormatBytes(block_bytes));
  const auto ranks = static_cast<uint64_t>(places.num_ranks_here);
  const auto token_bytes = static_cast<uint64_t>(
      4 * (8 * c.hidden_size + 4 * c.num_attention_heads * c.head_dim +
           2 * c.top_k * (c.hidden_size + c.moe_intermediate_size) + c.num_experts));
  const checkpoint::MemoryPart parts[] = {
      {"weights", weights, ""},
      {"KV cache", ranks * static_cast<uint64_t>(num_kv_blocks) * block_bytes, "--kv-cache-memory"},
      {"buffers", ranks * static_cast<uint64_t>(options.max_num_tokens) * token_bytes,
       "--max-num-tokens"},
      {"logits", ranks * static_cast<uint64_t>(options.max_batch_size * c.vocab_size) * 4,
       "--max-batch-size"},
      {"exchange", ranks * ExchangeBytes(c, options), "--moe-max-num-tokens"}};
  checkpoint::CheckMemory(parts, available);
  return num_kv_blocks;
}

std::vector<runtime::Fact> FlagFacts(const EngineFlags& flags) {
  const bool is_file = FileExists(flags.placement);
  const auto number = [](auto value) { return fmt::format("{}", value); };
  return {{"--threads", number(flags.threads)},
          {"--kernels", flags.kernels},
          {"--max-seq-len", number(flags.max_seq_len)},
          {"--kv-cache-memory", flags.kv_cache_memory},
          {"--max-num-tokens", number(flags.max_num_tokens)},
          {"--max-batch-size", number(flags.max_batch_size)},
          {"--num-slots", number(flags.num_slots)},
          {"--placement", is_file ? "a file with the fingerprint " +
                                        runtime::Fingerprint(ReadFile(flags.placement))
                                  : flags.placement},
          {"--split", flags.split},
          {"--moe-max-num-tokens", number(flags.moe_max_num_tokens)},
          {"--deadline", number(flags.deadline_s)}};
}

}  // namespace wideload::apps
