#include "disaggregated_servers.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/host.h"
#include "base/log.h"
#include "interrupt.h"
#include "refusal.h"
#include "runtime/rank.h"
#include "runtime/servers/block_service.h"
#include "runtime/servers/context_server.h"
#include "runtime/servers/remote_contexts.h"
#include "serve/server.h"
#include "session.h"

namespace wideload::apps {
namespace {

constexpr std::chrono::seconds kConnectLimit{30};

// What the processes tell each other before they begin. Plain bytes.
struct ServerCard {
  int32_t part = 0;
  int32_t is_leader = 0;
  HostId host;
  runtime::CacheCard cache;      // of context servers
  comm::LifeCard listener;       // of the front door's process
  comm::LifeCard blocks;         // of context ranks whose caches are read over TCP
  std::array<char, 24> model{};  // the fingerprint of its config.json
};

// One process of the run.
class ServerProcess {
 public:
  ServerProcess(const DisaggregatedRun& run, runtime::ProcessWorld& world)
      : run_(run), world_(world) {}

  // Returns the exit code.
  int Run();

 private:
  bool is_generation() const { return world_.part() == 0; }
  const EngineFlags& flags() const { return is_generation() ? run_.generation : run_.context; }
  void CheckAll();
  void FindPlaces();
  Session Start(const CheckBeforeLoad& check);
  void Meet(Session& session, const runtime::EngineOptions& options);
  std::vector<runtime::CachePlace> CachePlacesOf(int32_t part,
                                                 std::span<const ServerCard> cards) const;
  void Connect(const Session& session, std::span<const ServerCard> cards);
  void TakeConnections();
  void Lead();
  void Generate();
  void ComputePrompts();
  void ServeFront(Session& session, FrontDoor& door);

  const DisaggregatedRun& run_;
  runtime::ProcessWorld& world_;
  std::unique_ptr<serve::HttpServer> http_;             // of the front door's process
  std::unique_ptr<runtime::MessageListener> listener_;  // likewise
  runtime::ContextCaches caches_;                       // of ranks of the generation server
  std::vector<std::shared_ptr<runtime::MessageSocket>> sockets_;  // of the front door's process
  std::unique_ptr<runtime::MessageSocket> to_generation_;         // of leaders of context servers
  runtime::ServerRouter::Capacity capacity_;                     // of each context server
  bool is_one_host_ = true;                                       // of all processes
  bool has_mapped_cache_ = false;  // of a context rank: some generation rank maps it
  bool has_read_cache_ = false;    // likewise: some reads it over TCP
  bool has_met_ = false;
};

// How ranks on the two hosts reach each other's caches.
bool Maps(config::KvTransfer transfer, const HostId& one, const HostId& other) {
  return transfer != config::KvTransfer::kNetwork && one == other;
}

std::vector<int32_t> PartsOf(const DisaggregatedRun& run) {
  std::vector<int32_t> parts = {runtime::ThreadPlaces(run.generation).layout.world()};
  parts.insert(parts.end(), static_cast<size_t>(run.file.context.num_instances),
               runtime::ThreadPlaces(run.context).layout.world());
  return parts;
}

// What every process can say by itself, and the port before weights are read.
void ServerProcess::CheckAll() {
  const auto check = [&] {
    const std::vector<int32_t> parts = PartsOf(run_);
    if (world_.part() < 0) {
      int64_t sum = 0;
      for (const int32_t part : parts) sum += part;
      Throw(ErrorKind::kInvalid,
            "{} has servers of {} ranks in all ({} to generate, {} x {} for prompts), and {} "
            "processes were started: say mpirun -n {}",
            run_.generation.config_file, sum, parts[0], parts.size() - 1, parts[1], world_.size(),
            sum);
    }
    if (run_.file.generation.num_instances > 1)
      Throw(ErrorKind::kUnsupported,
            "{}: generation_servers.num_instances is {}; as processes one is supported, of any "
            "layout: several run as engines on threads of one process, without mpirun",
            run_.generation.config_file, run_.file.generation.num_instances);
    run_.front.Check(run_.generation);
    if (!world_.leads_all()) return;
    // NOLINTNEXTLINE(modernize-make-unique): it does not move
    http_.reset(new serve::HttpServer(run_.front.Listen()));
  };
  if (world_.part() < 0) return world_.Together(check);
  world_.TogetherWithAllParts(check);
}

// Which hosts the processes are on, and what that means for this one's cache.
void ServerProcess::FindPlaces() {
  struct Place {
    int32_t part = 0;
    config::KvTransfer transfer = config::KvTransfer::kAuto;
    HostId host;
  };
  const Place own{.part = world_.part(), .transfer = run_.file.kv_transfer, .host = ThisHost()};
  const std::vector<Place> places = world_.GatherOfAllParts(own);
  for (const Place& place : places) {
    is_one_host_ = is_one_host_ && place.host == own.host;
    if (place.part != 0 || is_generation()) continue;
    (Maps(own.transfer, own.host, place.host) ? has_mapped_cache_ : has_read_cache_) = true;
  }
  world_.TogetherWithAllParts([&] {
    for (const Place& place : places)
      if (place.transfer != places.front().transfer)
        Throw(ErrorKind::kInvalid,
              "kv_transfer differs between processes: all need the same file ({})",
              run_.generation.config_file);
    if (own.transfer == config::KvTransfer::kSharedMemory && has_read_cache_)
      Throw(ErrorKind::kInvalid,
            "kv_transfer is shared_memory, and context server {} has a rank on another host than "
            "one of the generation server: say auto or network",
            world_.part() - 1);
  });
}

// Of every process of a server, the engine's start included. What fails in one ends all.
Session ServerProcess::Start(const CheckBeforeLoad& check) {
  runtime::StartSettings settings = StartSettingsOf(&world_, flags(), check);
  using CachePlace = runtime::StartSettings::CachePlace;
  if (!is_generation())
    settings.cache_place = has_mapped_cache_ ? CachePlace::kShared : CachePlace::kBlock;
  settings.contexts = &caches_;
  settings.before_begin = [&](Session& session, const runtime::EngineOptions& options) {
    Meet(session, options);
    session.cache.Unlink();
  };
  try {
    return runtime::StartSession(&world_, flags(), settings);
  } catch (...) {
    if (has_met_) throw;
    const std::exception_ptr failure = std::current_exception();
    world_.TogetherWithAllParts([&] { std::rethrow_exception(failure); });
    throw;
  }
}

void ServerProcess::Meet(Session& session, const runtime::EngineOptions& options) {
  has_met_ = true;
  ServerCard own{.part = world_.part(), .is_leader = world_.is_leader(), .host = ThisHost()};
  world_.TogetherWithAllParts([&] {
    own.cache = runtime::CacheCard::Of(options, world_.job());
    const std::string print =
        runtime::Fingerprint(ReadFile(session.folder + "/config.json", kMaxSettingsBytes));
    std::copy_n(print.begin(), std::min(print.size(), own.model.size() - 1), own.model.begin());
    if (has_read_cache_) {
      const std::span<std::byte> memory = options.cache_memory[static_cast<size_t>(world_.rank())];
      session.blocks = std::make_unique<runtime::BlockService>(
          runtime::BlockService::Source{
              .spec = &session.model->spec(),
              .rank = {.rank = world_.rank() % options.layout.tp, .size = options.layout.tp},
              .shape = runtime::CacheShapeOf(session.model->spec(), options, world_.rank()),
              .memory = memory},
          is_one_host_);
      own.blocks = session.blocks->card();
    }
    if (!world_.leads_all()) return;
    listener_ = std::make_unique<runtime::MessageListener>(is_one_host_);
    own.listener = listener_->card();
  });
  const std::vector<ServerCard> cards = world_.GatherOfAllParts(own);
  world_.TogetherWithAllParts([&] { Connect(session, cards); });
  world_.TogetherWithAllParts([&] {
    if (world_.leads_all()) TakeConnections();
  });
  world_.LeaveOtherParts();
}

// Of the ranks of a context server, for this one of the generation server.
std::vector<runtime::CachePlace> ServerProcess::CachePlacesOf(
    int32_t part, std::span<const ServerCard> cards) const {
  std::vector<runtime::CachePlace> places;
  for (const ServerCard& card : cards)
    if (card.part == part)
      places.push_back({.is_mapped = Maps(run_.file.kv_transfer, card.host, ThisHost()),
                        .service = card.blocks});
  return places;
}

void ServerProcess::Connect(const Session& session, std::span<const ServerCard> cards) {
  for (const ServerCard& card : cards) {
    const int32_t context = card.part - 1;
    if (card.model != cards.front().model)
      Throw(ErrorKind::kInvalid,
            "context server {} has another model than the generation server: their config.json "
            "differ",
            context);
    if (card.cache.kernels != cards.front().cache.kernels)
      Throw(ErrorKind::kUnsupported, "{}",
            runtime::HandOverRefusal(card.cache.Options(), cards.front().cache.Options()));
    if (!is_generation() || context < 0 || card.is_leader == 0) continue;
    capacity_ = runtime::ServerRouter::CapacityOf(card.cache.Options());
    caches_.Attach(session.model->spec(), card.cache,  // which stays where it is
                   CachePlacesOf(card.part, cards));
  }
  if (is_generation() || !world_.is_leader()) return;
  to_generation_ = runtime::ConnectTo(cards.front().listener);
  const int32_t index = world_.part() - 1;
  to_generation_->Send(std::as_bytes(std::span(&index, 1)));
}

// Each says first which server it is.
void ServerProcess::TakeConnections() {
  sockets_.resize(static_cast<size_t>(run_.file.context.num_instances));
  for (size_t i = 0; i < sockets_.size(); ++i) {
    std::unique_ptr<runtime::MessageSocket> socket = listener_->Accept(kConnectLimit);
    const auto said = socket->Receive();
    int32_t index = -1;
    if (said && said->size() == sizeof(index)) std::memcpy(&index, said->data(), sizeof(index));
    if (index < 0 || index >= std::ssize(sockets_) || sockets_[static_cast<size_t>(index)])
      Throw(ErrorKind::kRunFailed, "a context server says that it is number {}", index);
    sockets_[static_cast<size_t>(index)] = std::move(socket);
  }
  listener_.reset();
}

// Requests under way end first; a context server that was lost is told of at the end.
void ServerProcess::ServeFront(Session& session, FrontDoor& door) {
  const auto& file = run_.file;
  const size_t num_contexts = sockets_.size();
  runtime::RemoteContexts prompts({.sockets = std::move(sockets_),
                                   .caches = &caches_,
                                   .vocab_size = session.config.vocab_size,
                                   .routing = RoutingOf(file.context),
                                   .capacity = capacity_,
                                   .on_signal = NoteInterrupt});
  bool are_all_there = false;
  {
    runtime::EngineLoop loop(*session.engine, door.tokenizer.get());
    loop.UseContext(prompts, std::chrono::milliseconds(file.transfer_timeout_ms));
    RunUnrecorded(session, [&] {
      serve::Serve(
          door.model, loop, *http_, door.options,
          [&] {
            LogInfo("serving {}; prompts are computed by {} of {} servers, in processes",
                    run_.front.PlaceText(door.model.name, http_->port()), num_contexts,
                    num_contexts + 1);
          },
          [&] { return InterruptSignal() != 0 || !prompts.is_any_running(); });
    });
    are_all_there = prompts.Stop();
  }
  world_.NoteOtherParts(are_all_there);
  if (!are_all_there) Throw(ErrorKind::kRunFailed, "a context server has ended before the others");
}

void ServerProcess::Generate() {
  FrontDoor door;
  Session session = Start([&](const Session& start, const runtime::EngineOptions& options) {
    RefuseOutputs(start);
    door.Open(run_.front, start, options);
    return options.max_seq_len;
  });
  door.NoteEngine(session);
  ServeFront(session, door);
  LogInfo("all requests are answered; the server has ended");
}

void ServerProcess::ComputePrompts() {
  Session session = Start([](const Session& start, const runtime::EngineOptions& options) {
    RefuseOutputs(start);
    return options.max_seq_len;
  });
  runtime::ContextServer server(*session.engine, *to_generation_, InterruptSignal);
  RunUnrecorded(session, [&] { world_.NoteOtherParts(server.Serve()); });
}

void ServerProcess::Lead() {
  world_.NoteOtherParts(false);  // unless it is known
  is_generation() ? Generate() : ComputePrompts();
  ForgetInterrupt();
}

int ServerProcess::Run() {
  if (!world_.leads_all()) {
    const std::string name = is_generation() ? "" : fmt::format("context {}", world_.part() - 1);
    const std::string rank = world_.size() == 1 || (world_.is_leader() && !is_generation())
                                 ? ""
                                 : fmt::format("rank {}", world_.rank());
    SetLogPrefix(fmt::format("[{}{}{}] ", name, name.empty() || rank.empty() ? "" : " ", rank));
  }
  CatchInterrupts();
  try {
    CheckAll();
    FindPlaces();
  } catch (const std::exception& failure) {
    return world_.leads_all() ? ReportFailure(failure) : FailureCode(failure);
  }
  if (world_.is_leader()) return LeadRanks(world_, [&] { Lead(); });
  return ServeRanks(world_, [&] {
    const Session session = Start({});
    session.server->Serve();
  });
}

}  // namespace

runtime::ServerRouting RoutingOf(const config::ServerSide& side) {
  using Router = config::ServerSide::Router;
  return side.router == Router::kLoadBalancing  ? runtime::ServerRouting::kLoadBalancing
         : side.router == Router::kKvCacheAware ? runtime::ServerRouting::kCacheAware
                                                : runtime::ServerRouting::kRoundRobin;
}

void RefuseOutputs(const Session& start) {
  if (start.record || !start.trace_path.empty())
    Throw(ErrorKind::kUnsupported,
          "expert statistics and traces are of one engine; serve disaggregated writes none");
}

void RunServersOnProcesses(const DisaggregatedRun& run) {
  RefuseSlurmWithoutPmi();
  int code = 0;
  {
    const std::vector<int32_t> parts = PartsOf(run);
    runtime::ProcessWorld world(parts);
    code = ServerProcess(run, world).Run();
  }
  if (code != 0) EndSilently(code);
  ForgetInterrupt();
}

}  // namespace wideload::apps
