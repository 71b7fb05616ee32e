#include "session.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "base/cpu_info.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/load_progress.h"
#include "comm/mpi/launch.h"
#include "command_line.h"
#include "embedded_model.h"
#include "kv/paged_cache.h"
#include "model/registry.h"

namespace wideload::apps {
namespace {

// Each of several processes would load and answer for itself.
void RefuseSeveralProcesses() {
  if (comm::DetectLaunch(std::getenv) == comm::Launch::kAlone) return;
  Throw(
      ErrorKind::kUnsupported,
      "this process was started by mpirun or srun as one of several; the engine runs its ranks as "
      "threads of one process: start it without them, with --ep N for N ranks");
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

// Refuses a folder that cannot be written before the model is loaded.
void PrepareRecording(const EngineFlags& flags, Session& session) {
  session.record = statistics::ChooseRecordSettings(
      {.flag_path = flags.statistic_path,
       .flag_range = flags.statistic_iter_range,
       .environment_path = std::getenv("EXPERT_STATISTIC_PATH"),
       .environment_range = std::getenv("EXPERT_STATISTIC_ITER_RANGE")});
  if (!session.record) return;
  if (session.config.num_experts == 0)
    Throw(ErrorKind::kInvalid, "expert statistics are asked for ({}); {} has no experts",
          session.record->path, session.config.architecture);
  if (flags.replace_statistics) session.existing = statistics::ExistingFolder::kReplace;
  statistics::CheckStatisticsFolder(session.record->path, session.existing);
}

void StartRecording(Session& session) {
  if (!session.record) return;
  session.recorder = std::make_unique<statistics::Recorder>(
      statistics::RecorderOptions{.num_ranks = session.engine->options().num_ranks,
                                  .layers = session.model->shape().moe.layers,
                                  .num_experts = static_cast<int32_t>(session.config.num_experts),
                                  .experts_per_token = static_cast<int32_t>(session.config.top_k),
                                  .range = session.record->range});
  session.engine->SetRecorder(session.recorder.get());
}

// One line: what is active.
void LogStart(const EngineFlags& flags, const model::Family& family, const Session& session) {
  const runtime::EngineOptions& options = session.engine->options();
  const checkpoint::ModelConfig& c = session.config;
  const std::string layout =
      options.num_ranks == 1 && options.num_slots == c.num_experts
          ? "all experts on one rank"
          : fmt::format("{} slots for {} experts, placement {}, split {}", options.num_slots,
                        c.num_experts, flags.placement, flags.split);
  LogInfo(
      "{} ({}): {} ranks x {} threads, kernels {}, context {}, weights {}, KV for {} tokens per "
      "rank, {}; online balancer: none",
      session.folder, family.name, options.num_ranks, options.threads_per_rank,
      KernelSetName(session.kernels), options.max_seq_len,
      FormatBytes(static_cast<uint64_t>(session.model->shape().weight_bytes)),
      options.num_kv_blocks * kv::kBlockTokens, layout);
}

void EndIfRankIsStuck(const Session& session, const std::exception& failure) {
  if (session.engine->stuck_ranks().empty()) return;
  std::fprintf(stderr, "wideload: error: %s\n", failure.what());
  std::fflush(nullptr);
  std::_Exit(ExitCode(ErrorKind::kRunFailed));
}

}  // namespace

Session StartSession(const EngineFlags& flags, const CheckBeforeLoad& check) {
  const auto start = std::chrono::steady_clock::now();
  RefuseSeveralProcesses();
  Session session;
  session.folder = flags.model.empty() ? EmbeddedModelFolder() : flags.model;
  session.config = checkpoint::ReadModelConfig(session.folder);
  session.generation = checkpoint::ReadGenerationConfig(session.folder);
  const model::Family& family = model::FindFamily(session.config.architecture);
  const runtime::EngineOptions options = ResolveOptions(flags, session.config, family);
  session.kernels = options.kernels;
  PrepareRecording(flags, session);
  if (check) check(session, options);
  LoadModel(flags, family, options.max_seq_len, session);
  session.engine = std::make_unique<runtime::Engine>(*session.model, options);
  StartRecording(session);
  session.load_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  LogStart(flags, family, session);
  return session;
}

void RunUnrecorded(Session& session, const std::function<void()>& work) {
  try {
    work();
  } catch (const std::exception& failure) {
    EndIfRankIsStuck(session, failure);
    throw;
  }
}

void RunRecorded(Session& session, const std::function<void()>& work) {
  const auto write = [&] {
    if (!session.recorder) return;
    session.recorder->Write(session.record->path, session.existing);
    if (session.recorder->num_dropped() > 0)
      LogWarn("{}: {} iterations did not fit into memory and are missing", session.record->path,
              session.recorder->num_dropped());
    LogInfo("{}: expert statistics of {} iterations", session.record->path,
            session.recorder->Statistics().num_iterations);
  };
  RunUnrecorded(session, [&] {
    try {
      work();
    } catch (const std::exception&) {
      try {
        write();
      } catch (const Error& e) {
        LogWarn("{}", e.what());
      }
      throw;
    }
  });
  write();
}

void RefuseInvalid(const runtime::Request& request, const Session& session,
                   const runtime::EngineOptions& options, std::string_view place) {
  const std::string reason = RefusalReason(request, options, session.config.vocab_size);
  if (!reason.empty()) Throw(ErrorKind::kInvalid, "{}: {}", place, reason);
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
  app.add_option(Names("seed"), flags.seed, "of the random numbers")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option(Names("max-tokens", "n"), flags.max_tokens, "tokens to generate")
      ->check(CLI::NonNegativeNumber);
  app.add_flag(Names("ignore-eos"), flags.ignore_eos,
               "do not stop at the model's end-of-sequence tokens");
}

namespace {

// `wrong` is "top_p is 2; allowed: ...": puts the flag's spelling or the file before it.
[[noreturn]] void RefuseSampling(const std::string& wrong, const SamplingFlags& flags,
                                 const Session& session) {
  std::string field = wrong.substr(0, wrong.find(' '));
  const std::pair<std::string_view, bool> from_file[] = {
      {"temperature", !flags.temperature},
      {"top_k", !flags.top_k},
      {"top_p", !flags.top_p},
      {"min_p", !flags.min_p},
      {"repetition_penalty", !flags.repetition_penalty}};
  for (const auto& [name, is_from_file] : from_file)
    if (field == name && is_from_file)
      Throw(ErrorKind::kInvalid, "{}/generation_config.json: {}", session.folder, wrong);
  std::replace(field.begin(), field.end(), '_', '-');
  Throw(ErrorKind::kInvalid, "--{}{}", field, wrong.substr(field.size()));
}

}  // namespace

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
  if (!wrong.empty()) RefuseSampling(wrong, flags, session);
  if (flags.logprobs.value_or(0) < 0)
    RefuseSampling(fmt::format("logprobs is {}; allowed: 0 and above", *flags.logprobs), flags,
                   session);
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
