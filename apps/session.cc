#include "session.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <utility>

#include "base/cpu_info.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/temporary.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/load_progress.h"
#include "checkpoint/memory_plan.h"
#include "comm/mpi/launch.h"
#include "embedded_model.h"
#include "interrupt.h"
#include "kv/paged_cache.h"
#include "model/registry.h"
#include "model/transformer.h"
#include "run_outputs.h"
#include "version.h"

namespace wideload::apps {
namespace {

// What of a model's memory is made elsewhere, and by whom it is read; nothing for one of its own.
struct SharedPlaces {
  Arena* arena = nullptr;               // of all but the experts
  model::WeightStore* store = nullptr;  // of the experts
  bool is_first = true;                 // of the ranks here: reads what is in the arena
  int num_threads = NumAllowedCpus();
};

// Reads the weights, or its part of them, with progress.
void LoadModel(const EngineFlags& flags, const SharedPlaces& places, Session& session) {
  ThreadPool pool("load", places.num_threads);
  checkpoint::Checkpoint weights(session.folder);
  if (flags.check_weights && places.is_first) checkpoint::CheckWeights(weights, {}, pool);
  model::LoadOptions options{
      .kernels = session.kernels,
      .pool = &pool,
      .mode = places.is_first ? model::LoadMode::kRead : model::LoadMode::kAttach,
      .arena = places.arena};
  if (places.store != nullptr)
    options.place_expert = [&](int32_t moe_index, int32_t expert, int64_t) {
      return model::PlacedExpert{.storage = Buffer::Over(places.store->BytesOf(moe_index, expert)),
                                 .is_read = places.store->IsOwn(expert)};
    };
  std::optional<checkpoint::LoadProgress> progress;
  int64_t reported = 0;
  if (places.is_first) {
    progress.emplace("loading weights", weights.TotalBytes());
    options.progress = [&](int64_t done, int64_t) {
      progress->Add(static_cast<uint64_t>(done - std::exchange(reported, done)));
    };
  }
  model::WeightLoader loader(weights, options);
  session.model = model::LoadTransformer(session.spec, loader);
  if (!progress) return;
  progress->Finish();
  for (const std::string& line : model::DescribeUnused(session.spec, weights.UnusedTensors()))
    LogInfo("{}: {}", session.folder, line);
}

// Errors: what is wrong with names and shapes.
ModelBytes MeasureModel(const Session& session) {
  checkpoint::Checkpoint weights(session.folder);
  ModelBytes bytes;
  bytes.experts.resize(session.spec.moe.layers.size());
  model::WeightLoader loader(weights,
                             {.kernels = session.kernels,
                              .mode = model::LoadMode::kMeasure,
                              .place_expert = [&](int32_t moe_index, int32_t, int64_t num_bytes) {
                                bytes.experts[static_cast<size_t>(moe_index)].push_back(num_bytes);
                                bytes.weights += Arena::PieceBytes(num_bytes);
                                return model::PlacedExpert{};
                              }});
  model::LoadTransformer(session.spec, loader);
  bytes.all_but_experts = loader.stored_bytes();
  bytes.weights += bytes.all_but_experts;
  bytes.expert = loader.expert_bytes();
  return bytes;
}

std::string CopiesText(const Session& session) {
  const int64_t bytes = SlotBytes(session.spec, session.bytes, session.engine->options());
  if (bytes == 0) return "";
  return fmt::format(", each slot a copy ({} per rank)", FormatBytes(static_cast<uint64_t>(bytes)));
}

// What moves experts while requests run, or why nothing does.
std::string BalancerText(const EngineFlags& flags, const Session& session) {
  const runtime::EngineOptions& options = session.engine->options();
  const rebalance::OnlineOptions& online = options.rebalance;
  if (session.config.num_experts == 0) return "none (no experts)";
  if (online.mode == rebalance::Mode::kOff)
    return flags.rebalance.empty() || flags.rebalance == "off"
               ? "off"
               : fmt::format("off (num_slots is 0 in {})", flags.placement);
  if (options.num_ranks == 1) return "none (one rank)";
  const auto bytes = [&](int64_t num_slots) {
    return FormatBytes(static_cast<uint64_t>(num_slots * session.bytes.expert));
  };
  if (online.mode == rebalance::Mode::kRandom) return flags.rebalance;
  if (online.mode == rebalance::Mode::kTensorRtLlm)
    return fmt::format("tensorrt_llm, {} layers at a time (up to {})",
                       online.layer_updates_per_iter,
                       bytes(int64_t{online.layer_updates_per_iter} * options.num_slots));
  return fmt::format("repair, up to {} slots ({}) at a time", online.max_fetched_slots_per_iter,
                     bytes(online.max_fetched_slots_per_iter));
}

// One line: what is active.
void LogStart(const EngineFlags& flags, const Session& session) {
  const runtime::EngineOptions& options = session.engine->options();
  const checkpoint::ModelConfig& c = session.config;
  const std::string layout =
      c.num_experts == 0 ? "no experts"
      : options.num_ranks == 1 && options.num_slots == c.num_experts
          ? "all experts on one rank"
          : fmt::format("{} slots for {} experts, placement {}, split {}{}", options.num_slots,
                        c.num_experts, flags.placement, flags.split, CopiesText(session));
  const std::string places =
      session.links ? fmt::format(" in processes ({})", session.links->text()) : "";
  LogInfo(
      "{} ({}): {} ranks x {} threads{}, kernels {}, context {}, weights {}, KV for {} tokens per "
      "rank, {}; online balancer: {}",
      session.folder, session.family, options.num_ranks, options.threads_per_rank, places,
      KernelSetName(session.kernels), session.context,
      FormatBytes(static_cast<uint64_t>(session.model->weight_bytes())),
      options.num_kv_blocks * kv::kBlockTokens, layout, BalancerText(flags, session));
}

// What the flags say of the folder, but for the options.
Session OpenFolder(const EngineFlags& flags) {
  Session session;
  session.folder = flags.model.empty() ? EmbeddedModelFolder() : flags.model;
  model::ModelReading reading = model::ReadModel(session.folder);
  session.config = std::move(reading.config);
  session.spec = std::move(reading.spec);
  session.family = reading.family;
  session.generation = checkpoint::ReadGenerationConfig(session.folder);
  return session;
}

// The engine is made for requests as long as can come.
void LimitContext(int64_t longest, runtime::EngineOptions& options) {
  options.max_seq_len = std::max<int64_t>(
      1, std::min({options.max_seq_len, longest, options.num_kv_blocks * kv::kBlockTokens}));
}

Session StartOnThreads(const EngineFlags& flags, const CheckBeforeLoad& check) {
  Session session = OpenFolder(flags);
  const RankPlaces places = ThreadPlaces(flags);
  runtime::EngineOptions options = ResolveOptions(flags, session.config, places);
  session.kernels = options.kernels;
  session.bytes = MeasureModel(session);
  options.num_kv_blocks = PlanMemory(flags, session.spec, session.bytes, places, options);
  PrepareOutputs(flags, session);
  StartTrace(!flags.trace.empty(), session, options);
  session.context = options.max_seq_len;
  LimitContext(check ? check(session, options) : options.max_seq_len, options);
  LoadModel(flags, {}, session);
  session.engine = std::make_unique<runtime::Engine>(*session.model, options);
  StartRecording(session);
  LogStart(flags, session);
  return session;
}

// Names, types and shapes of all tensors, and bytes from the middle of some: two trainings of one
// model differ in any of them, and reading all weights would take as long as loading them.
std::string TensorsOf(const std::string& folder) {
  constexpr size_t kMaxSamples = 1024;  // of tensors, at equal distances
  constexpr int64_t kSampleBytes = 64;
  const checkpoint::Checkpoint weights(folder);
  const std::vector<std::string_view> names = weights.Names();
  const size_t step = (names.size() + kMaxSamples - 1) / kMaxSamples;
  std::string text;
  for (size_t i = 0; i < names.size(); ++i) {
    const TensorView& view = weights.Peek(names[i]);
    text += fmt::format("{} {} {}\n", names[i], DTypeName(view.dtype()), view.shape().ToString());
    if (i % step != 0) continue;
    const int64_t count = std::min(kSampleBytes, view.num_bytes());
    text.append(static_cast<const char*>(view.raw()) + (view.num_bytes() - count) / 2,
                static_cast<size_t>(count));
  }
  return text;
}

// What must be the same on all ranks, and is compared before any work.
std::vector<runtime::Fact> FactsOf(const EngineFlags& flags, const Session& session) {
  std::vector<runtime::Fact> facts = {
      {"the version of wideload", kVersion},
      {"the fingerprint of the model's config.json",
       runtime::Fingerprint(ReadFile(session.folder + "/config.json", kMaxSettingsBytes))},
      {"the fingerprint of the model's tensors (names, types, shapes, samples)",
       runtime::Fingerprint(TensorsOf(session.folder))}};
  const std::vector<runtime::Fact> of_flags = FlagFacts(flags);
  facts.insert(facts.end(), of_flags.begin(), of_flags.end());
  return facts;
}

// The kernel set of all ranks: what each can run, unless the flags say one.
compute::KernelSet CommonKernels(runtime::ProcessWorld& world,
                                 const runtime::EngineOptions& options) {
  return runtime::CommonKernelSet(world.Gather(options.kernels));
}

// What the experts' parts are called here. Ranks that only seem to be on several hosts share a
// folder.
std::string StoreName(const EngineFlags& flags, int host) {
  const char* const variable = std::getenv("TRTLLM_EPLB_SHM_NAME");
  const std::string base = !flags.weight_store.empty() ? flags.weight_store
                           : variable != nullptr       ? variable
                                                       : model::WeightStorePlace().base;
  return host == 0 ? base : fmt::format("{}_h{}", base, host);
}

// The ranks of a host read the experts together into shared memory, and the first of them the rest.
// All of it has lost its names before it is read: whoever is killed meanwhile leaves nothing.
void ShareModel(runtime::ProcessWorld& world, const EngineFlags& flags, Session& session) {
  const SegmentName name{.job = world.job(), .name = fmt::format("weights-{}", world.host())};
  const bool is_first = world.local_rank() == 0;
  session.experts = std::make_unique<model::WeightStore>(
      model::WeightStorePlace{.base = StoreName(flags, world.host()),
                              .job = world.job(),
                              .local_rank = world.local_rank(),
                              .num_local_ranks = world.local_size()},
      session.spec.moe.layers, session.bytes.experts);
  world.Together([&] {
    if (!is_first) return;
    session.experts->Create();
    session.weights = SharedMemory::Create(name, session.bytes.all_but_experts);
    // Alone on its host: nobody needs the names, and nobody would remove them.
    if (world.local_size() > 1) return;
    session.experts->Unlink();
    session.weights.Unlink();
  });
  world.Together([&] {
    if (!is_first) session.experts->Create();
  });
  world.Together([&] {
    session.experts->Attach();
    if (!is_first) session.weights = SharedMemory::Attach(name);
  });
  session.experts->Unlink();
  session.weights.Unlink();
  world.Together([&] {
    Arena arena(session.weights.bytes());
    LoadModel(flags,
              {.arena = &arena,
               .store = session.experts.get(),
               .is_first = is_first,
               .num_threads = std::max(1, NumAllowedCpus() / world.local_size())},
              session);
  });
}

// Refuses before work what this host's shared memory cannot hold.
void CheckSharedMemoryOf(const runtime::ProcessWorld& world, const runtime::EngineOptions& options,
                         int64_t weight_bytes, const Session& session) {
  if (world.local_rank() != 0) return;
  const auto exchange_bytes = static_cast<int64_t>(ExchangeBytes(session.spec, options));
  const SharedMemoryPart parts[] = {
      {"weights", weight_bytes},
      {fmt::format("exchange and messages of {} ranks", world.local_size()),
       world.LinkBytes(exchange_bytes)}};
  CheckSharedMemory(parts);
}

// What StartOnProcesses makes step by step.
struct Start {
  Session session;
  runtime::EngineOptions options;
};

// Reads flags and config, compares them, and settles what the machines decide together.
void AgreeOnStart(runtime::ProcessWorld& world, const EngineFlags& flags, Start& start) {
  const RankPlaces places{.num_ranks = world.size(),
                          .num_ranks_here = world.local_size(),
                          .are_processes = true,
                          .cores_per_rank = world.cores_per_rank()};
  std::vector<runtime::Fact> facts;
  Session& session = start.session;
  runtime::EngineOptions& options = start.options;
  world.Together([&] {
    session = OpenFolder(flags);
    options = ResolveOptions(flags, session.config, places);
    facts = FactsOf(flags, session);
  });
  world.Agree(facts);
  options.kernels = session.kernels = CommonKernels(world, options);
  options.threads_per_rank = std::ranges::min(world.Gather(options.threads_per_rank));
  world.Together([&] {
    session.bytes = MeasureModel(session);
    options.num_kv_blocks = PlanMemory(flags, session.spec, session.bytes, places, options);
    CheckSharedMemoryOf(world, options, session.bytes.weights, session);
  });
  options.num_kv_blocks = std::ranges::min(world.Gather(options.num_kv_blocks));
  session.context = options.max_seq_len;
}

Session StartOnProcesses(runtime::ProcessWorld& world, const EngineFlags& flags,
                         const CheckBeforeLoad& check) {
  if (world.is_leader()) world.BeginSession();
  Start start;
  AgreeOnStart(world, flags, start);
  Session& session = start.session;
  runtime::EngineOptions& options = start.options;
  int64_t longest = 0;
  world.Together([&] {
    if (!world.is_leader()) return;
    PrepareOutputs(flags, session);
    longest = check ? check(session, options) : options.max_seq_len;
  });
  longest = std::ranges::max(world.Gather(longest));
  StartTrace(world.Gather(static_cast<int32_t>(!session.trace_path.empty())).front() != 0, session,
             options);
  world.Together([&] { LimitContext(longest, options); });
  ShareModel(world, flags, session);
  world.Together([&] {
    session.links = world.Connect(options, runtime::ExchangeSegmentBytes(*session.model, options));
    session.links->view.pending_signal = InterruptSignal;
    session.links->view.on_signal = NoteInterrupt;
    if (!world.is_leader())
      session.server =
          std::make_unique<runtime::RankServer>(*session.model, options, session.links->view);
  });
  if (world.is_leader()) {
    session.engine =
        std::make_unique<runtime::Engine>(*session.model, options, session.links->view);
    StartRecording(session);
    LogStart(flags, session);
  }
  return std::move(session);
}

// Rank 0's part of a run of processes.
int Lead(runtime::ProcessWorld& world, const std::function<void(runtime::ProcessWorld*)>& command) {
  int code = 0;
  try {
    command(world.size() > 1 ? &world : nullptr);
    code = FinishOutput(InterruptExitCode());
  } catch (const std::exception& failure) {
    code = ReportFailure(failure);
  }
  world.End(code);
  return code;
}

// That of the others: serve sessions until rank 0 ends the run.
int Serve(runtime::ProcessWorld& world, const EngineFlags& flags) {
  try {
    while (true) {
      if (const std::optional<int> code = world.NextPhase()) return *code;
      const Session session = StartSession(&world, flags);
      session.server->Serve();
    }
  } catch (const std::exception& failure) {
    // What all ranks have thrown rank 0 tells of.
    const auto* const error = dynamic_cast<const Error*>(&failure);
    if (world.has_agreed_to_end() && error != nullptr) return ExitCode(error->kind());
    world.NoteFailure();
    return ReportFailure(failure);
  }
}

void EndIfRankIsStuck(const Session& session, const std::exception& failure) {
  if (session.engine->stuck_ranks().empty()) return;
  ReportFailure(failure);
  std::fflush(nullptr);
  RemoveTemporaries();
  std::_Exit(ExitCode(ErrorKind::kRunFailed));
}

}  // namespace

Session StartSession(runtime::ProcessWorld* world, const EngineFlags& flags,
                     const CheckBeforeLoad& check) {
  const auto start = std::chrono::steady_clock::now();
  Session session =
      world == nullptr ? StartOnThreads(flags, check) : StartOnProcesses(*world, flags, check);
  session.load_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return session;
}

void RefuseSeveralProcesses() {
  if (comm::DetectLaunch(std::getenv) == comm::Launch::kAlone) return;
  Throw(ErrorKind::kUnsupported,
        "this process was started by mpirun or srun as one of several; this command runs its ranks "
        "as threads of one process: start it without them");
}

void RunOnRanks(const EngineFlags& flags,
                const std::function<void(runtime::ProcessWorld*)>& command) {
  const comm::Launch launch = comm::DetectLaunch(std::getenv);
  if (launch == comm::Launch::kAlone) return command(nullptr);
  if (launch == comm::Launch::kSlurmWithoutPmi)
    Throw(ErrorKind::kUnsupported,
          "srun started this process as one of several that MPI cannot bring together; use srun "
          "--mpi=pmix (srun --mpi=list shows what there is)");
  int code = 0;
  {
    runtime::ProcessWorld world;
    if (!world.is_leader()) {
      SetLogPrefix(fmt::format("[rank {}] ", world.rank()));
      CatchInterrupts();
    }
    code = world.is_leader() ? Lead(world, command) : Serve(world, flags);
  }
  if (code != 0) EndSilently(code);
  ForgetInterrupt();  // rank 0 has made of it what it asks for
}

void RunUnrecorded(Session& session, const std::function<void()>& work) {
  try {
    work();
  } catch (const std::exception& failure) {
    if (const int64_t lost = session.engine->num_unfinished(); lost > 0)
      LogWarn("{} requests had not ended; what they had generated is lost", lost);
    EndIfRankIsStuck(session, failure);
    throw;
  }
}

void RunRecorded(Session& session, const std::function<void()>& work) {
  RunUnrecorded(session, [&] {
    try {
      work();
    } catch (const std::exception&) {
      try {
        WriteOutputs(session);
      } catch (const Error& e) {
        LogWarn("{}", e.what());
      }
      throw;
    }
  });
  WriteOutputs(session);
}

void RefuseInvalid(const runtime::Request& request, const Session& session,
                   const runtime::EngineOptions& options, std::string_view place) {
  const std::string reason = RefusalReason(request, options, session.config.vocab_size);
  if (!reason.empty()) Throw(ErrorKind::kInvalid, "{}: {}", place, reason);
}

}  // namespace wideload::apps
