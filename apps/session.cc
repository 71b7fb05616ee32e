#include "session.h"

#include <chrono>
#include <thread>

#include "base/cpu_info.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "checkpoint/load_progress.h"
#include "checkpoint/memory_plan.h"
#include "command_line.h"
#include "embedded_model.h"
#include "model/registry.h"

namespace wideload::apps {
namespace {

using compute::KernelSet;

// Bytes per rank for keys and values.
uint64_t KvBytes(const EngineFlags& flags, const runtime::EngineOptions& options,
                 uint64_t bytes_per_block, uint64_t free_bytes) {
  const std::string flag = "--kv-cache-memory";
  const auto wanted =
      static_cast<uint64_t>(options.max_batch_size * kv::BlocksFor(options.max_seq_len)) *
      bytes_per_block;
  const auto ranks = static_cast<uint64_t>(options.num_ranks);
  if (flags.kv_cache_memory.empty()) return std::min(wanted, free_bytes / 2 / ranks);
  const bool is_fraction =
      flags.kv_cache_memory.find_first_not_of("0123456789.") == std::string::npos &&
      flags.kv_cache_memory.find('.') != std::string::npos;
  if (!is_fraction) return ParseBytes(flags.kv_cache_memory, flag);
  const double fraction = std::stod(flags.kv_cache_memory);
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

runtime::EngineOptions Options(const EngineFlags& flags, const Session& session) {
  runtime::EngineOptions options;
  options.kernels = session.kernels;
  options.num_ranks = flags.num_ranks;
  options.threads_per_rank =
      flags.threads > 0 ? flags.threads : std::max(1, NumAllowedCpus() / flags.num_ranks);
  options.max_num_tokens = flags.max_num_tokens;
  options.max_batch_size = flags.max_batch_size;
  options.max_seq_len = ContextLength(flags, session.config);
  return options;
}

// Adds up weights, KV and buffers, refuses what does not fit, and sets the number of KV blocks.
void PlanMemory(const EngineFlags& flags, const model::Family& family, const Session& session,
                runtime::EngineOptions& options) {
  const checkpoint::ModelConfig& c = session.config;
  const uint64_t available = AvailableMemoryBytes();
  const auto weights = static_cast<uint64_t>(family.weight_bytes(c, session.kernels));
  const kv::CacheShape block{.num_layers = c.num_layers,
                             .num_blocks = 1,
                             .kv_heads = c.num_kv_heads,
                             .head_dim = c.head_dim,
                             .dtype = compute::ComputeDType(session.kernels)};
  const auto block_bytes = static_cast<uint64_t>(block.BytesPerBlock());
  const uint64_t kv_bytes =
      KvBytes(flags, options, block_bytes, available > weights ? available - weights : 0);
  options.num_kv_blocks = static_cast<int64_t>(kv_bytes / block_bytes);
  if (options.num_kv_blocks < 1)
    Throw(ErrorKind::kResource,
          "--kv-cache-memory gives {} per rank; one block of {} tokens needs {}",
          FormatBytes(kv_bytes), kv::kBlockTokens, FormatBytes(block_bytes));
  const auto ranks = static_cast<uint64_t>(options.num_ranks);
  const auto token_bytes = static_cast<uint64_t>(
      4 * (8 * c.hidden_size + 4 * c.num_attention_heads * c.head_dim +
           2 * c.top_k * (c.hidden_size + c.moe_intermediate_size) + c.num_experts));
  const checkpoint::MemoryPart parts[] = {
      {"weights", weights, ""},
      {"KV cache", ranks * static_cast<uint64_t>(options.num_kv_blocks) * block_bytes,
       "--kv-cache-memory"},
      {"buffers", ranks * static_cast<uint64_t>(options.max_num_tokens) * token_bytes,
       "--max-num-tokens"}};
  checkpoint::CheckMemory(parts, available);
}

void LoadModel(const EngineFlags& flags, const model::Family& family, int64_t max_positions,
               Session& session) {
  ThreadPool pool("load", NumAllowedCpus());
  checkpoint::Checkpoint weights(session.folder);
  if (flags.check_weights) checkpoint::CheckWeights(weights, {}, pool);
  checkpoint::LoadProgress progress("loading weights", weights.TotalBytes());
  int64_t reported = 0;
  model::WeightLoader loader(
      weights, {.kernels = session.kernels, .pool = &pool, .progress = [&](int64_t done, int64_t) {
                  progress.Add(static_cast<uint64_t>(done - reported));
                  reported = done;
                }});
  session.model = family.load(session.config, loader, max_positions);
  progress.Finish();
  const std::vector<std::string> unused = weights.UnusedTensors();
  if (!unused.empty())
    LogWarn("{}: {} tensors are not used by {}, the first is {}", session.folder, unused.size(),
            family.name, unused.front());
}

}  // namespace

void AddEngineFlags(CLI::App& app, EngineFlags& flags) {
  app.add_option(Names("model", "m"), flags.model,
                 "Hugging Face folder (default: the embedded model wideload-14m)");
  app.add_option(Names("threads"), flags.threads, "threads of a rank (default: cores / ranks)")
      ->check(CLI::Range(1, 4096));
  app.add_option(Names("kernels"), flags.kernels,
                 "auto, reference, avx2, avx512, avx512_bf16 or amx")
      ->capture_default_str();
  app.add_option(Names("max-seq-len"), flags.max_seq_len,
                 "tokens of one request, prompt and generated (default: the model's context)")
      ->check(CLI::PositiveNumber);
  app.add_option(Names("kv-cache-memory"), flags.kv_cache_memory,
                 "KV cache of a rank: a size (64M) or a fraction of the free memory shared by the "
                 "ranks (0.5)");
  app.add_option(Names("max-num-tokens"), flags.max_num_tokens,
                 "tokens a rank computes in an iteration")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option(Names("max-batch-size"), flags.max_batch_size, "requests running on a rank")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 16))
      ->capture_default_str();
  app.add_flag(Names("check-weights"), flags.check_weights,
               "look at every weight before the start and refuse NaN and infinity");
}

Session StartSession(const EngineFlags& flags) {
  const auto start = std::chrono::steady_clock::now();
  Session session;
  session.folder = flags.model.empty() ? EmbeddedModelFolder() : flags.model;
  session.config = checkpoint::ReadModelConfig(session.folder);
  session.generation = checkpoint::ReadGenerationConfig(session.folder);
  session.kernels = compute::ParseKernelSet(flags.kernels);
  const model::Family& family = model::FindFamily(session.config.architecture);
  runtime::EngineOptions options = Options(flags, session);
  PlanMemory(flags, family, session, options);
  LoadModel(flags, family, options.max_seq_len, session);
  session.engine = std::make_unique<runtime::Engine>(*session.model, options);
  session.load_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  LogInfo(
      "{} ({}), {} ranks x {} threads, kernels {}, context {}, weights {}, KV {} per rank, "
      "balancer: none (no replicas)",
      session.folder, family.name, options.num_ranks, options.threads_per_rank,
      compute::KernelSetName(session.kernels), options.max_seq_len,
      FormatBytes(static_cast<uint64_t>(session.model->shape().weight_bytes)),
      FormatBytes(static_cast<uint64_t>(
          options.num_kv_blocks * kv::CacheShape{.num_layers = session.config.num_layers,
                                                 .num_blocks = 1,
                                                 .kv_heads = session.config.num_kv_heads,
                                                 .head_dim = session.config.head_dim,
                                                 .dtype = compute::ComputeDType(session.kernels)}
                                      .BytesPerBlock())));
  return session;
}

void AddSamplingFlags(CLI::App& app, SamplingFlags& flags) {
  app.add_option(Names("temperature"), flags.temperature,
                 "0 is greedy (default: generation_config.json, else 0)");
  app.add_option(Names("top-k"), flags.top_k, "keep the k most likely tokens; 0 keeps all");
  app.add_option(Names("top-p"), flags.top_p,
                 "keep the smallest set of tokens with this probability");
  app.add_option(Names("min-p"), flags.min_p,
                 "drop tokens below this share of the most likely one");
  app.add_option(Names("repetition-penalty"), flags.repetition_penalty,
                 "divides logits of tokens seen; 1 is off");
  app.add_option(Names("presence-penalty"), flags.presence_penalty,
                 "subtracted from logits of tokens generated before");
  app.add_option(Names("frequency-penalty"), flags.frequency_penalty,
                 "subtracted per time a token was generated");
  app.add_option(Names("seed"), flags.seed, "of the random numbers")->capture_default_str();
  app.add_option(Names("max-tokens", "n"), flags.max_tokens, "tokens to generate")
      ->check(CLI::NonNegativeNumber);
  app.add_flag(Names("ignore-eos"), flags.ignore_eos,
               "do not stop at the model's end-of-sequence tokens");
}

runtime::SamplingParams ResolveSampling(const SamplingFlags& flags, const Session& session) {
  const checkpoint::GenerationConfig& file = session.generation;
  const bool greedy = file.do_sample.has_value() && !*file.do_sample;
  runtime::SamplingParams params;
  params.temperature =
      flags.temperature.value_or(greedy ? 0 : file.temperature.value_or(file.do_sample ? 1 : 0));
  params.top_k = flags.top_k.value_or(
      static_cast<int32_t>(std::min<int64_t>(file.top_k.value_or(0), 1 << 30)));
  params.top_p = flags.top_p.value_or(file.top_p.value_or(1));
  params.min_p = flags.min_p.value_or(file.min_p.value_or(0));
  params.repetition_penalty =
      flags.repetition_penalty.value_or(file.repetition_penalty.value_or(1));
  params.presence_penalty = flags.presence_penalty.value_or(0);
  params.frequency_penalty = flags.frequency_penalty.value_or(0);
  params.seed = flags.seed;
  params.num_logprobs = flags.logprobs.value_or(-1);
  const std::string wrong = InvalidField(params, session.config.vocab_size);
  if (!wrong.empty()) Throw(ErrorKind::kInvalid, "--{}", wrong);
  return params;
}

std::vector<int32_t> ResolveEos(const SamplingFlags& flags, const Session& session) {
  if (flags.ignore_eos) return {};
  const std::vector<int64_t>& ids =
      session.generation.eos_ids.empty() ? session.config.eos_ids : session.generation.eos_ids;
  std::vector<int32_t> eos;
  for (const int64_t id : ids) eos.push_back(static_cast<int32_t>(id));
  return eos;
}

}  // namespace wideload::apps
