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
#include "grammar/grammar_cache.h"
#include "interrupt.h"
#include "refusal.h"
#include "runtime/generation_engines.h"
#include "runtime/rank.h"
#include "runtime/servers/block_service.h"
#include "runtime/servers/context_server.h"
#include "runtime/servers/generation_server.h"
#include "runtime/servers/remote_contexts.h"
#include "runtime/servers/remote_engine.h"
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
  // Servers that generate are the first parts, those for prompts follow.
  int32_t num_generations() const { return run_.file.generation.num_instances; }
  bool is_generation() const { return world_.part() < num_generations(); }
  std::string NameOf(int32_t part) const {
    return part < num_generations() ? fmt::format("generation server {}", part)
                                    : fmt::format("context server {}", part - num_generations());
  }
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
  void GenerateForFront();
  void ComputePrompts();
  void ServeFront(Session& session, FrontDoor& door);

  const DisaggregatedRun& run_;
  runtime::ProcessWorld& world_;
  std::unique_ptr<serve::HttpServer> http_;             // of the front door's process
  std::unique_ptr<runtime::MessageListener> listener_;  // likewise
  runtime::ContextCaches caches_;                       // of ranks of the generation server
  std::vector<std::unique_ptr<runtime::MessageSocket>> sockets_;  // likewise: of parts 1 and on
  std::unique_ptr<runtime::MessageSocket> to_front_;              // of the other servers' leaders
  runtime::ServerRouter::Capacity capacity_;                      // of each context server
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
  std::vector<int32_t> parts(static_cast<size_t>(run.file.generation.num_instances),
                             runtime::ThreadPlaces(run.generation).layout.world());
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
            "{} has servers of {} ranks in all ({} x {} to generate, {} x {} for prompts), and {} "
            "processes were started: say mpirun -n {}",
            run_.generation.config_file, sum, num_generations(), parts.front(),
            run_.file.context.num_instances, parts.back(), world_.size(), sum);
    }
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
    if (place.part >= num_generations() || is_generation()) continue;
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
            "kv_transfer is shared_memory, and {} has a rank on another host than one of a "
            "generation server: say auto or network",
            NameOf(world_.part()));
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
              .part =
                  runtime::CachePartOf(options, session.model->spec().num_layers(), world_.rank()),
              .shape = runtime::CacheShapeOf(session.model->spec(), options, world_.rank()),
              .num_micro_batches = options.num_micro_batches,
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
    const int32_t context = card.part - num_generations();
    if (card.model != cards.front().model)
      Throw(ErrorKind::kInvalid,
            "{} has another model than the front door: their config.json differ",
            NameOf(card.part));
    if (card.cache.kernels != cards.front().cache.kernels)
      Throw(ErrorKind::kUnsupported, "{}",
            runtime::HandOverRefusal(card.cache.Options(), cards.front().cache.Options()));
    if (!is_generation() || context < 0 || card.is_leader == 0) continue;
    capacity_ = runtime::ServerRouter::CapacityOf(card.cache.Options());
    caches_.Attach(session.model->spec(), card.cache,  // which stays where it is
                   CachePlacesOf(card.part, cards));
  }
  if (world_.part() == 0 || !world_.is_leader()) return;
  to_front_ = runtime::ConnectTo(cards.front().listener, "the front door");
  const int32_t index = world_.part() - 1;
  to_front_->Send(std::as_bytes(std::span(&index, 1)));
}

// Each says first which server it is.
void ServerProcess::TakeConnections() {
  const int64_t num_others = int64_t{num_generations()} - 1 + run_.file.context.num_instances;
  sockets_.resize(static_cast<size_t>(num_others));
  for (size_t i = 0; i < sockets_.size(); ++i) {
    std::unique_ptr<runtime::MessageSocket> socket = listener_->Accept(kConnectLimit);
    const auto said = socket->Receive();
    int32_t index = -1;
    if (said && said->size() == sizeof(index)) std::memcpy(&index, said->data(), sizeof(index));
    if (index < 0 || index >= std::ssize(sockets_) || sockets_[static_cast<size_t>(index)])
      Throw(ErrorKind::kRunFailed, "a server says that it is number {}", index);
    sockets_[static_cast<size_t>(index)] = std::move(socket);
  }
  listener_.reset();
}

// Requests under way end first; a server that was lost is told of at the end.
void ServerProcess::ServeFront(Session& session, FrontDoor& door) {
  const auto& file = run_.file;
  const std::optional<int64_t> max_own_prefill = MaxOwnPrefill(file, session);
  std::vector<std::unique_ptr<runtime::RemoteEngine>> others;
  std::vector<runtime::TokenEngine*> other_engines;
  for (int32_t part = 1; part < num_generations(); ++part) {
    others.push_back(std::make_unique<runtime::RemoteEngine>(
        std::move(sockets_[static_cast<size_t>(part - 1)]), NameOf(part), NoteInterrupt));
    other_engines.push_back(others.back().get());
  }
  runtime::RemoteContexts prompts(
      {.sockets = {std::move_iterator(sockets_.begin() + num_generations() - 1),
                   std::move_iterator(sockets_.end())},
       .caches = &caches_,
       .vocab_size = session.config.vocab_size,
       .routing = RoutingOf(file.context),
       .capacity = capacity_,
       .on_signal = NoteInterrupt});
  runtime::Engine* const own[] = {session.engine.get()};
  runtime::GenerationEngines servers(
      own,
      {.tokenizer = door.tokenizer.get(),
       .contexts = &prompts,
       .transfer_timeout = std::chrono::milliseconds(file.transfer_timeout_ms),
       .routing = RoutingOf(file.generation),
       .max_own_prefill = max_own_prefill,
       .max_retries = file.max_retries},
      other_engines);
  RunUnrecorded(session, [&] {
    serve::Serve(
        door.model, servers, *http_, door.options,
        [&] {
          LogInfo("serving {}; prompts are computed by {} of {} servers, in processes",
                  run_.front.PlaceText(door.model.name, http_->port()), file.context.num_instances,
                  file.context.num_instances + num_generations());
        },
        [&] { return InterruptSignal() != 0 || !prompts.is_any_running(); });
  });
  servers.Stop();
  const bool are_generations_there =
      !servers.failure(0) &&
      std::ranges::none_of(others, [](const auto& other) { return other->is_gone(); });
  const bool are_all_there = prompts.Stop(are_generations_there);
  for (const auto& other : others) other->Stop(are_all_there);
  world_.NoteOtherParts(are_all_there);
  RunUnrecorded(session, [&] {
    if (servers.failure(0)) std::rethrow_exception(servers.failure(0));
  });
  if (!are_all_there)
    Throw(ErrorKind::kRunFailed, "a {} server has ended before the others",
          are_generations_there ? "context" : "generation");
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

void ServerProcess::GenerateForFront() {
  Session session = Start([](const Session& start, const runtime::EngineOptions& options) {
    RefuseOutputs(start);
    return options.max_seq_len;
  });
  std::unique_ptr<const tokenizer::Tokenizer> tokenizer;
  std::unique_ptr<grammar::GrammarCache> grammars;
  const auto own_grammars = [&]() -> grammar::GrammarCache& {
    if (grammars) return *grammars;
    tokenizer = std::make_unique<const tokenizer::Tokenizer>(
        tokenizer::Tokenizer::FromFile(session.folder));
    grammars = std::make_unique<grammar::GrammarCache>(
        std::make_shared<const grammar::TokenTrie>(*tokenizer, session.config.vocab_size));
    return *grammars;
  };
  runtime::GenerationServer server(*session.engine, caches_, *to_front_, own_grammars,
                                   InterruptSignal);
  RunUnrecorded(session, [&] { world_.NoteOtherParts(server.Serve()); });
}

void ServerProcess::ComputePrompts() {
  Session session = Start([](const Session& start, const runtime::EngineOptions& options) {
    RefuseOutputs(start);
    return options.max_seq_len;
  });
  runtime::ContextServer server(*session.engine, *to_front_, InterruptSignal);
  RunUnrecorded(session, [&] { world_.NoteOtherParts(server.Serve()); });
}

void ServerProcess::Lead() {
  world_.NoteOtherParts(false);  // unless it is known
  if (world_.part() == 0)
    Generate();
  else
    is_generation() ? GenerateForFront() : ComputePrompts();
  ForgetInterrupt();
}

int ServerProcess::Run() {
  if (!world_.leads_all()) {
    const int32_t context = world_.part() - num_generations();
    const std::string name = context >= 0        ? fmt::format("context {}", context)
                             : world_.part() > 0 ? fmt::format("generation {}", world_.part())
                                                 : "";
    const std::string rank = world_.size() == 1 || (world_.is_leader() && world_.part() > 0)
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

std::optional<int64_t> MaxOwnPrefill(const config::DisaggregatedFile& file,
                                     const Session& generation) {
  if (file.max_local_prefill && !generation.engine->scheduler().has_prefix_cache())
    Throw(
        ErrorKind::kUnsupported,
        "conditional_disagg_config is for prompts whose blocks are reused, and generation servers "
        "reuse none: block reuse is off, or layers of this model look back a window");
  return file.max_local_prefill;
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
