#include "session.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <set>
#include <utility>

#include "base/cpu_info.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/temporary.h"
#include "checkpoint/memory_plan.h"
#include "comm/mpi/launch.h"
#include "config/layout_flags.h"
#include "embedded_model.h"
#include "interrupt.h"
#include "kv/paged_cache.h"
#include "model/registry.h"
#include "model/sharded_model.h"
#include "run_outputs.h"
#include "session_weights.h"
#include "version.h"

namespace wideload::apps {
namespace {

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
  if (options.layout.stage() == 1) return "none (one rank)";
  if (options.layout.moe_ep == 1) return "none (every rank has a part of every expert)";
  const auto bytes = [&](int64_t num_slots) {
    return FormatBytes(
        static_cast<uint64_t>(num_slots * session.bytes.expert * options.layout.moe_tp));
  };
  if (online.mode == rebalance::Mode::kRandom) return flags.rebalance;
  if (online.mode == rebalance::Mode::kTensorRtLlm)
    return fmt::format("tensorrt_llm, {} layers at a time (up to {})",
                       online.layer_updates_per_iter,
                       bytes(int64_t{online.layer_updates_per_iter} * options.num_slots));
  return fmt::format("repair, up to {} slots ({}) at a time", online.max_fetched_slots_per_iter,
                     bytes(online.max_fetched_slots_per_iter));
}

std::string RanksText(const parallel::Layout& whole) {
  if (whole.pp > 1) {
    parallel::Layout stage = whole;
    stage.pp = 1;
    return fmt::format("{} stages of {}", whole.pp, RanksText(stage));
  }
  const parallel::Layout& layout = whole;
  std::string text = fmt::format("{} ranks", layout.world());
  const auto add = [&](std::string_view what, int32_t size) {
    if (size == 1) return;
    text += text.ends_with("ranks") ? " that share " : " and ";
    text += what;
    if (size < layout.world()) text += fmt::format(" by {}", size);
  };
  add("attention", layout.tp);
  add("contexts", layout.cp);
  return text;
}

std::string PartsText(const parallel::Layout& layout) {
  return layout.moe_tp == 1 ? "" : fmt::format(", each divided among {} ranks", layout.moe_tp);
}

// One line: what is active.
void LogStart(const EngineFlags& flags, const Session& session) {
  const runtime::EngineOptions& options = session.engine->options();
  const checkpoint::ModelConfig& c = session.config;
  const std::string layout =
      c.num_experts == 0 ? "no experts"
      : options.layout.stage() == 1 && options.num_slots == c.num_experts
          ? "all experts on one rank"
          : fmt::format("{} slots for {} experts{}, placement {}, split {}{}", options.num_slots,
                        c.num_experts, PartsText(options.layout), flags.placement, flags.split,
                        CopiesText(session));
  const std::string places =
      session.links ? fmt::format(" in processes ({})", session.links->text()) : "";
  LogInfo(
      "{} ({}): {} x {} threads{}, kernels {}, context {}, weights {}{}, KV for {} tokens per "
      "{}, {}; online balancer: {}",
      session.folder, session.family, RanksText(options.layout), options.threads_per_rank, places,
      KernelSetName(session.kernels), session.context,
      FormatBytes(static_cast<uint64_t>(session.model->weight_bytes())),
      session.packed ? fmt::format(" (experts in {})", flags.weight_file) : "",
      options.num_micro_batches * options.KvTokens(),
      options.layout.cp == 1 ? "rank" : "shared context", layout, BalancerText(flags, session));
  if (options.prefix_cache && !session.engine->scheduler().has_prefix_cache())
    LogInfo("no prefix cache: layers of this model look back a window, and give up what is behind");
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
  options.max_seq_len =
      std::max<int64_t>(1, std::min({options.max_seq_len, longest, options.KvTokens()}));
}

Session StartOnThreads(const EngineFlags& flags, const CheckBeforeLoad& check) {
  Session session = OpenFolder(flags);
  const RankPlaces places = ThreadPlaces(flags);
  runtime::EngineOptions options = ResolveOptions(flags, session.config, places);
  session.kernels = options.kernels;
  CheckLayout(session.spec, options.layout);
  session.shards = model::AllShards(options.layout.tp);
  session.expert_parts = model::AllParts(options.layout.moe_tp);
  session.bytes = MeasureModel(flags, session);
  options.num_kv_blocks = PlanMemory(flags, session.spec, session.bytes, places, options);
  session.memory = MemoryParts(session.spec, session.bytes, places, options);
  PrepareOutputs(flags, session);
  StartTrace(!flags.trace.empty(), session, options);
  session.context = options.max_seq_len;
  LimitContext(check ? check(session, options) : options.max_seq_len, options);
  LoadOnThreads(flags, session);
  session.engine = std::make_unique<runtime::Engine>(*session.model, options);
  StartRecording(session);
  LogStart(flags, session);
  return session;
}

// What must be the same on all ranks, and is compared before any work.
std::vector<runtime::Fact> FactsOf(const EngineFlags& flags, const parallel::Layout& layout,
                                   const Session& session) {
  std::vector<runtime::Fact> facts = {
      {"the version of wideload", kVersion},
      {"the fingerprint of the model's config.json",
       runtime::Fingerprint(ReadFile(session.folder + "/config.json", kMaxSettingsBytes))},
      {"the fingerprint of the model's tensors (names, types, shapes, samples)",
       runtime::Fingerprint(TensorsOf(session.folder))},
      {"the layout", fmt::format("--tp {} --cp {} --dp {} --moe-tp {} --pp {}", layout.tp,
                                 layout.cp, layout.dp, layout.moe_tp, layout.pp)}};
  const std::vector<runtime::Fact> of_flags = FlagFacts(flags);
  facts.insert(facts.end(), of_flags.begin(), of_flags.end());
  return facts;
}

// The kernel set of all ranks: what each can run, unless the flags say one.
compute::KernelSet CommonKernels(runtime::ProcessWorld& world,
                                 const runtime::EngineOptions& options) {
  return runtime::CommonKernelSet(world.Gather(options.kernels));
}

// Those of the ranks of this host.
model::TensorShards ShardsHere(const runtime::ProcessWorld& world, int32_t tensor_ranks) {
  std::set<int32_t> kept;
  for (const int rank : world.ranks_here()) kept.insert(rank % tensor_ranks);
  return {.own = {.rank = world.rank() % tensor_ranks, .size = tensor_ranks},
          .kept = {kept.begin(), kept.end()}};
}

// Those of experts, of the ranks of this host.
model::ExpertParts PartsHere(const runtime::ProcessWorld& world, const parallel::Layout& layout) {
  std::set<int32_t> kept;
  for (const int rank : world.ranks_here())
    kept.insert(parallel::CoordinatesOf(layout, rank).moe_tp);
  return {.size = layout.moe_tp, .kept = {kept.begin(), kept.end()}};
}

// The layers of the stages on this host, and of those between them.
parallel::Shard LayersHere(const runtime::ProcessWorld& world,
                           const runtime::EngineOptions& options, int64_t num_layers) {
  const auto [first, last] = std::ranges::minmax(world.ranks_here());
  return {options.LayersOf(first / options.layout.stage(), num_layers).begin,
          options.LayersOf(last / options.layout.stage(), num_layers).end};
}

// What StartOnProcesses makes step by step.
struct Start {
  Session session;
  runtime::EngineOptions options;
};

// Reads flags and config, compares them, and settles what the machines decide together.
void AgreeOnStart(runtime::ProcessWorld& world, const EngineFlags& flags, Start& start) {
  RankPlaces places{.num_ranks_here = world.local_size(),
                    .are_processes = true,
                    .cores_per_rank = world.cores_per_rank()};
  std::vector<runtime::Fact> facts;
  Session& session = start.session;
  runtime::EngineOptions& options = start.options;
  world.Together([&] {
    session = OpenFolder(flags);
    places.layout = config::ResolveLayout(flags, world.size());
    options = ResolveOptions(flags, session.config, places);
    CheckLayout(session.spec, options.layout);
    session.shards = ShardsHere(world, options.layout.tp);
    session.expert_parts = flags.weight_file.empty() ? PartsHere(world, options.layout)
                                                     : model::AllParts(options.layout.moe_tp);
    if (flags.weight_file.empty() && options.layout.pp > 1)
      session.layers = LayersHere(world, options, session.spec.num_layers());
    facts = FactsOf(flags, options.layout, session);
  });
  world.Agree(facts);
  options.kernels = session.kernels = CommonKernels(world, options);
  options.threads_per_rank = std::ranges::min(world.Gather(options.threads_per_rank));
  world.Together([&] {
    session.bytes = MeasureModel(flags, session);
    options.num_kv_blocks = PlanMemory(flags, session.spec, session.bytes, places, options);
    CheckSharedMemoryOf(world, options, session);
  });
  options.num_kv_blocks = std::ranges::min(world.Gather(options.num_kv_blocks));
  session.memory = MemoryParts(session.spec, session.bytes, places, options);
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
  LoadOnProcesses(world, flags, session);
  world.Together([&] {
    session.links = world.Connect(options, runtime::ExchangeSegmentBytes(*session.model, options));
    session.links->view.pending_signal = InterruptSignal;
    session.links->view.on_signal = NoteInterrupt;
    session.links->view.on_failure = [&world](const std::exception& failure) {
      world.Fail(FailureText(failure));
    };
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
    code = world.has_failed() ? FailureCode(failure) : ReportFailure(failure);  // told at once
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
    world.Fail(FailureText(failure));
    return FailureCode(failure);
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
