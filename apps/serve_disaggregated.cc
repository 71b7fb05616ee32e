#include "serve_disaggregated.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "base/cpu_info.h"
#include "base/error.h"
#include "base/log.h"
#include "comm/mpi/launch.h"
#include "config/disaggregated_file.h"
#include "disaggregated_servers.h"
#include "interrupt.h"
#include "option_flags.h"
#include "runtime/context_engines.h"
#include "runtime/generation_engines.h"
#include "serve/server.h"
#include "serve_flags.h"
#include "session.h"

namespace wideload::apps {
namespace {

struct DisaggregatedCommand {
  EngineFlags common;  // of both sides
  ServeFlags front;

  void Run();

 private:
  void Read();
  std::vector<Session> StartGenerations(FrontDoor& door) const;
  std::vector<Session> StartContexts(const Session& generation) const;
  void Serve(std::vector<Session>& generations, std::vector<Session>& contexts, FrontDoor& door,
             serve::HttpServer& http) const;

  config::DisaggregatedFile file_;
  EngineFlags context_;
  EngineFlags generation_;
};

EngineFlags FlagsOf(const config::ServerSide& side, EngineFlags flags) {
  if (!flags.allow_unsupported) RefuseUnsupported(side.engine);
  ApplyConfigFile(side.engine, flags);
  CheckDevice(flags, /*can_use_gpus=*/false);
  return flags;
}

void RefuseHandOver(const runtime::EngineOptions& from, const runtime::EngineOptions& to) {
  const std::string refusal = runtime::HandOverRefusal(from, to);
  if (!refusal.empty()) Throw(ErrorKind::kUnsupported, "{}", refusal);
}

void DisaggregatedCommand::Read() {
  ReadOrRefuse([&] {
    if (common.config_file.empty())
      Throw(ErrorKind::kInvalid, "serve disaggregated needs a file: --config FILE");
    file_ = config::ReadDisaggregatedFile(common.config_file);
    context_ = FlagsOf(file_.context, common);
    generation_ = FlagsOf(file_.generation, common);
    if (context_.model != generation_.model)
      Throw(ErrorKind::kInvalid,
            "model is \"{}\" of context_servers and \"{}\" of generation_servers; both need one",
            context_.model, generation_.model);
    runtime::EngineOptions context;  // as far as layouts go, before anything is read
    runtime::EngineOptions generation;
    context.layout = runtime::ThreadPlaces(context_).layout;
    generation.layout = runtime::ThreadPlaces(generation_).layout;
    RefuseHandOver(context, generation);
  });
  front.host = file_.hostname.value_or(front.host);
  front.port = file_.port.value_or(front.port);
  // Those that are not said divide the machine's cores among all ranks of both sides; processes
  // find that out together.
  if (comm::DetectLaunch(std::getenv) != comm::Launch::kAlone) return;
  const int32_t num_ranks =
      file_.generation.num_instances * runtime::ThreadPlaces(generation_).layout.world() +
      file_.context.num_instances * runtime::ThreadPlaces(context_).layout.world();
  for (EngineFlags* const flags : {&context_, &generation_})
    if (flags->threads == 0) flags->threads = std::max(1, NumAllowedCpus() / num_ranks);
}

std::vector<Session> DisaggregatedCommand::StartGenerations(FrontDoor& door) const {
  std::vector<Session> generations;
  for (int32_t i = 0; i < file_.generation.num_instances; ++i) {
    LogInfo("generation server {}", i);
    generations.push_back(StartSession(
        nullptr, generation_, [&](const Session& start, const runtime::EngineOptions& options) {
          RefuseOutputs(start);
          if (i == 0) door.Open(front, start, options);
          return options.max_seq_len;
        }));
  }
  return generations;
}

std::vector<Session> DisaggregatedCommand::StartContexts(const Session& generation) const {
  std::vector<Session> contexts;
  for (int32_t i = 0; i < file_.context.num_instances; ++i) {
    LogInfo("context server {}", i);
    contexts.push_back(StartSession(
        nullptr, context_, [&](const Session& start, const runtime::EngineOptions& options) {
          RefuseOutputs(start);
          return options.max_seq_len;
        }));
    RefuseHandOver(contexts.back().engine->options(), generation.engine->options());
  }
  return contexts;
}

std::vector<runtime::Engine*> EnginesOf(const std::vector<Session>& sessions) {
  std::vector<runtime::Engine*> engines;
  for (const Session& session : sessions) engines.push_back(session.engine.get());
  return engines;
}

// Of servers that have failed: ends with the error of the first one.
template <class Servers>
void RethrowFailures(std::vector<Session>& sessions, const Servers& servers) {
  for (size_t i = 0; i < sessions.size(); ++i)
    RunUnrecorded(sessions[i], [&] {
      if (servers.failure(i)) std::rethrow_exception(servers.failure(i));
    });
}

// Those that have failed end the run with their error, once all requests have an answer.
void DisaggregatedCommand::Serve(std::vector<Session>& generations, std::vector<Session>& contexts,
                                 FrontDoor& door, serve::HttpServer& http) const {
  runtime::ContextEngines prompts(EnginesOf(contexts), RoutingOf(file_.context));
  runtime::GenerationEngines servers(
      EnginesOf(generations),
      {.tokenizer = door.tokenizer.get(),
       .contexts = &prompts,
       .transfer_timeout = std::chrono::milliseconds(file_.transfer_timeout_ms),
       .routing = RoutingOf(file_.generation),
       .max_own_prefill = MaxOwnPrefill(file_, generations.front()),
       .max_retries = file_.max_retries});
  try {
    serve::Serve(
        door.model, servers, http, door.options,
        [&] {
          LogInfo("serving {}; prompts are computed by {} of {} engines",
                  front.PlaceText(door.model.name, http.port()), contexts.size(),
                  contexts.size() + generations.size());
        },
        [&] { return InterruptSignal() != 0 || !prompts.is_any_running(); });
  } catch (const std::exception&) {
    servers.Stop();
    prompts.Stop();
    RethrowFailures(generations, servers);
    throw;
  }
  servers.Stop();
  prompts.Stop();
  RethrowFailures(generations, servers);
  RethrowFailures(contexts, prompts);
}

void DisaggregatedCommand::Run() {
  RefuseSlurmWithoutPmi();
  Read();
  if (comm::DetectLaunch(std::getenv) == comm::Launch::kMpi)
    return RunServersOnProcesses(
        {.file = file_, .context = context_, .generation = generation_, .front = front});
  front.Check(generation_);
  for (const auto* const side : {&file_.context, &file_.generation})
    for (const std::string& note : config::Notes(side->engine)) LogInfo("{}", note);
  CatchInterrupts();
  serve::HttpServer http = front.Listen();
  FrontDoor door;
  std::vector<Session> generations = StartGenerations(door);
  door.NoteEngine(generations.front());
  std::vector<Session> contexts = StartContexts(generations.front());
  Serve(generations, contexts, door, http);
  LogInfo("all requests are answered; the server has ended");
  ForgetInterrupt();
}

}  // namespace

void AddServeDisaggregated(Command serve) {
  const Command command =
      serve.Subcommand("disaggregated", "the same with prompts computed by engines of their own");
  auto& disaggregated = command.Runs<DisaggregatedCommand>(&DisaggregatedCommand::Run);
  for (const char* const name : {"--config", "--allow-unsupported", "--model"})
    AddOption(command, name, disaggregated.common);
  AddServeFlags(command, disaggregated.front);
}

}  // namespace wideload::apps
