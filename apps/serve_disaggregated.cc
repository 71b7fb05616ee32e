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
  Session StartGeneration(FrontDoor& door) const;
  std::vector<Session> StartContexts(const Session& generation) const;
  void Serve(Session& generation, std::vector<Session>& contexts, FrontDoor& door,
             serve::HttpServer& http) const;

  config::DisaggregatedFile file_;
  EngineFlags context_;
  EngineFlags generation_;
};

EngineFlags FlagsOf(const config::ServerSide& side, EngineFlags flags) {
  if (!flags.allow_unsupported) RefuseUnsupported(side.engine);
  ApplyConfigFile(side.engine, flags);
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
      runtime::ThreadPlaces(generation_).layout.world() +
      file_.context.num_instances * runtime::ThreadPlaces(context_).layout.world();
  for (EngineFlags* const flags : {&context_, &generation_})
    if (flags->threads == 0) flags->threads = std::max(1, NumAllowedCpus() / num_ranks);
}

Session DisaggregatedCommand::StartGeneration(FrontDoor& door) const {
  LogInfo("generation server");
  return StartSession(nullptr, generation_,
                      [&](const Session& start, const runtime::EngineOptions& options) {
                        RefuseOutputs(start);
                        door.Open(front, start, options);
                        return options.max_seq_len;
                      });
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

// Those that have failed end the run with their error, once all requests have an answer.
void DisaggregatedCommand::Serve(Session& generation, std::vector<Session>& contexts,
                                 FrontDoor& door, serve::HttpServer& http) const {
  std::vector<runtime::Engine*> engines;
  for (const Session& context : contexts) engines.push_back(context.engine.get());
  runtime::ContextEngines prompts(engines, RoutingOf(file_.context));
  runtime::EngineLoop loop(*generation.engine, door.tokenizer.get());
  loop.UseContext(prompts, std::chrono::milliseconds(file_.transfer_timeout_ms));
  RunUnrecorded(generation, [&] {
    serve::Serve(
        door.model, loop, http, door.options,
        [&] {
          LogInfo("serving {}; prompts are computed by {} of {} engines",
                  front.PlaceText(door.model.name, http.port()), contexts.size(),
                  contexts.size() + 1);
        },
        [&] { return InterruptSignal() != 0 || !prompts.is_any_running(); });
  });
  prompts.Stop();
  for (size_t i = 0; i < contexts.size(); ++i)
    RunUnrecorded(contexts[i], [&] {
      if (prompts.failure(i)) std::rethrow_exception(prompts.failure(i));
    });
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
  Session generation = StartGeneration(door);
  door.NoteEngine(generation);
  std::vector<Session> contexts = StartContexts(generation);
  Serve(generation, contexts, door, http);
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
