#include "runtime/start/session.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "checkpoint/memory_plan.h"
#include "config/layout_flags.h"
#include "kv/paged_cache.h"
#include "model/registry.h"
#include "model/sharded_model.h"
#include "runtime/start/device_limits.h"
#include "runtime/start/outputs.h"
#include "runtime/start/weights.h"

namespace wideload::runtime {
namespace {

std::string CopiesText(const Session& session) {
  const int64_t bytes = SlotBytes(session.spec, session.bytes, session.engine->options());
  if (bytes == 0) return "";
  return fmt::format(", each slot a copy ({} per rank)", FormatBytes(static_cast<uint64_t>(bytes)));
}

// What moves experts while requests run, or why nothing does.
std::string BalancerText(const config::EngineFlags& flags, const Session& session) {
  const EngineOptions& options = session.engine->options();
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
  std::string text = layout.world() == 1 ? "1 rank" : fmt::format("{} ranks", layout.world());
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
void LogStart(const config::EngineFlags& flags, const Session& session) {
  const EngineOptions& options = session.engine->options();
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

// What the folder says.
Session OpenFolder(const std::string& folder) {
  Session session;
  session.folder = folder;
  model::ModelReading reading = model::ReadModel(session.folder);
  session.config = std::move(reading.config);
  session.spec = std::move(reading.spec);
  session.family = reading.family;
  session.generation = checkpoint::ReadGenerationConfig(session.folder);
  return session;
}

// The engine is made for requests as long as can come.
void LimitContext(int64_t longest, EngineOptions& options) {
  options.max_seq_len =
      std::max<int64_t>(1, std::min({options.max_seq_len, longest, options.KvTokens()}));
}

// Where the ranks compute, unless it is the processor.
void UseDevices(const config::EngineFlags& flags, const StartSettings& settings, Session& session,
                EngineOptions& options) {
  RunDevices found = settings.open_devices(flags.device);
  if (found.devices.empty()) return;
  if (found.devices.size() > 1)
    Throw(ErrorKind::kUnsupported,
          "--device is {}, which are {} GPUs; all ranks compute on one: cuda:N is allowed",
          flags.device, found.devices.size());
  RefuseOnDevice(flags, session.config, session.spec, options);
  session.devices = std::move(found.devices);
  options.kernels = compute::KernelSet::kCudaMma;
  options.device = session.devices.front().get();
  options.device_kernels = found.kernels;
}

Session StartOnThreads(const config::EngineFlags& flags, const StartSettings& settings) {
  Session session = OpenFolder(settings.find_folder());
  const RankPlaces places = ThreadPlaces(flags);
  EngineOptions options = ResolveOptions(flags, session.config, places);
  UseDevices(flags, settings, session, options);
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
  LimitContext(settings.check ? settings.check(session, options) : options.max_seq_len, options);
  LoadOnThreads(flags, session);
  session.engine = std::make_unique<Engine>(*session.model, options);
  StartRecording(session);
  LogStart(flags, session);
  return session;
}

// What must be the same on all ranks, and is compared before any work.
std::vector<Fact> FactsOf(const config::EngineFlags& flags, const std::string& version,
                          const parallel::Layout& layout, const Session& session) {
  std::vector<Fact> facts = {
      {"the version of wideload", version},
      {"the fingerprint of the model's config.json",
       Fingerprint(ReadFile(session.folder + "/config.json", kMaxSettingsBytes))},
      {"the fingerprint of the model's tensors (names, types, shapes, samples)",
       Fingerprint(TensorsOf(session.folder))},
      {"the layout", fmt::format("--tp {} --cp {} --dp {} --moe-tp {} --pp {}", layout.tp,
                                 layout.cp, layout.dp, layout.moe_tp, layout.pp)}};
  const std::vector<Fact> of_flags = FlagFacts(flags);
  facts.insert(facts.end(), of_flags.begin(), of_flags.end());
  return facts;
}

// The kernel set of all ranks: what each can run, unless the flags say one.
compute::KernelSet CommonKernels(ProcessWorld& world, const EngineOptions& options) {
  return CommonKernelSet(world.Gather(options.kernels));
}

// Those of the ranks of this host.
model::TensorShards ShardsHere(const ProcessWorld& world, int32_t tensor_ranks) {
  std::set<int32_t> kept;
  for (const int rank : world.ranks_here()) kept.insert(rank % tensor_ranks);
  return {.own = {.rank = world.rank() % tensor_ranks, .size = tensor_ranks},
          .kept = {kept.begin(), kept.end()}};
}

// Those of experts, of the ranks of this host.
model::ExpertParts PartsHere(const ProcessWorld& world, const parallel::Layout& layout) {
  std::set<int32_t> kept;
  for (const int rank : world.ranks_here())
    kept.insert(parallel::CoordinatesOf(layout, rank).moe_tp);
  return {.size = layout.moe_tp, .kept = {kept.begin(), kept.end()}};
}

// The layers of the stages on this host, and of those between them.
parallel::Shard LayersHere(const ProcessWorld& world, const EngineOptions& options,
                           int64_t num_layers) {
  const auto [first, last] = std::ranges::minmax(world.ranks_here());
  return {options.LayersOf(first / options.layout.stage(), num_layers).begin,
          options.LayersOf(last / options.layout.stage(), num_layers).end};
}

// What StartOnProcesses makes step by step.
struct Start {
  Session session;
  EngineOptions options;
};

// Reads flags and config, compares them, and settles what the machines decide together.
void AgreeOnStart(ProcessWorld& world, const config::EngineFlags& flags,
                  const StartSettings& settings, Start& start) {
  RankPlaces places{.num_ranks_here = world.local_size(),
                    .are_processes = true,
                    .cores_per_rank = world.cores_per_rank()};
  std::vector<Fact> facts;
  Session& session = start.session;
  EngineOptions& options = start.options;
  world.Together([&] {
    session = OpenFolder(settings.find_folder());
    places.layout = config::ResolveLayout(flags, world.size());
    options = ResolveOptions(flags, session.config, places);
    CheckLayout(session.spec, options.layout);
    session.shards = ShardsHere(world, options.layout.tp);
    session.expert_parts = flags.weight_file.empty() ? PartsHere(world, options.layout)
                                                     : model::AllParts(options.layout.moe_tp);
    if (options.layout.pp > 1)
      session.layers = LayersHere(world, options, session.spec.num_layers());
    facts = FactsOf(flags, settings.version, options.layout, session);
  });
  world.Agree(facts);
  options.kernels = session.kernels = CommonKernels(world, options);
  options.threads_per_rank = std::ranges::min(world.Gather(options.threads_per_rank));
  world.Together([&] {
    session.bytes = MeasureModel(flags, session);
    options.num_kv_blocks = PlanMemory(flags, session.spec, session.bytes, places, options);
    CheckSharedMemoryOf(world, options, session,
                        settings.cache_place == StartSettings::CachePlace::kShared);
  });
  options.num_kv_blocks = std::ranges::min(world.Gather(options.num_kv_blocks));
  session.memory = MemoryParts(session.spec, session.bytes, places, options);
  session.context = options.max_seq_len;
}

// This rank's, for ranks of other engines.
void PlaceCache(const ProcessWorld& world, StartSettings::CachePlace place, Session& session,
                EngineOptions& options) {
  if (place == StartSettings::CachePlace::kOwn) return;
  options.cache_memory.resize(static_cast<size_t>(world.size()));
  std::span<std::byte>& memory = options.cache_memory[static_cast<size_t>(world.rank())];
  if (place == StartSettings::CachePlace::kShared) {
    session.cache = MakeCacheSegment(session.spec, options, world.job(), world.rank());
    memory = session.cache.bytes();
  } else {
    session.cache_block = Buffer(CacheBytesOf(session.spec, options, world.rank()));
    memory = {session.cache_block.data(), static_cast<size_t>(session.cache_block.num_bytes())};
  }
}

Session StartOnProcesses(ProcessWorld& world, const config::EngineFlags& flags,
                         const StartSettings& settings) {
  if (world.is_leader()) world.BeginSession();
  if (!ParseDevice(flags.device).is_cpu)
    Throw(ErrorKind::kUnsupported,
          "--device is {}: ranks that are processes compute with the processor; those of one "
          "process, without mpirun or srun, on a GPU",
          flags.device);
  Start start;
  AgreeOnStart(world, flags, settings, start);
  Session& session = start.session;
  EngineOptions& options = start.options;
  int64_t longest = 0;
  world.Together([&] {
    if (!world.is_leader()) return;
    PrepareOutputs(flags, session);
    longest = settings.check ? settings.check(session, options) : options.max_seq_len;
  });
  longest = std::ranges::max(world.Gather(longest));
  StartTrace(world.Gather(static_cast<int32_t>(!session.trace_path.empty())).front() != 0, session,
             options);
  world.Together([&] { LimitContext(longest, options); });
  LoadOnProcesses(world, flags, session);
  world.Together([&] {
    PlaceCache(world, settings.cache_place, session, options);
    session.links = world.Connect(options, ExchangeSegmentBytes(*session.model, options));
    session.links->view.contexts = settings.contexts;
    session.links->view.pending_signal = settings.pending_signal;
    session.links->view.on_signal = settings.on_signal;
    session.links->view.on_failure = settings.on_failure;
    if (!world.is_leader())
      session.server = std::make_unique<RankServer>(*session.model, options, session.links->view);
  });
  if (settings.before_begin) settings.before_begin(session, options);
  if (world.is_leader()) {
    session.engine = std::make_unique<Engine>(*session.model, options, session.links->view);
    StartRecording(session);
    LogStart(flags, session);
  }
  return std::move(session);
}

}  // namespace

Session StartSession(ProcessWorld* world, const config::EngineFlags& flags,
                     const StartSettings& settings) {
  const auto start = std::chrono::steady_clock::now();
  Session session = world == nullptr ? StartOnThreads(flags, settings)
                                     : StartOnProcesses(*world, flags, settings);
  session.load_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return session;
}

}  // namespace wideload::runtime
