// `wideload serve`: answers OpenAI's requests over HTTP.
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "base/error.h"
#include "base/log.h"
#include "comm/mpi/launch.h"
#include "commands.h"
#include "embedded_model.h"
#include "interrupt.h"
#include "serve/server.h"
#include "serve_control.h"
#include "serve_disaggregated.h"
#include "serve_flags.h"
#include "serve_front.h"
#include "session.h"

namespace wideload::apps {
namespace {

// Control routes have no other way in than from this machine.
constexpr const char* kControlHost = "127.0.0.1";
constexpr serve::HttpLimits kControlLimits{.body_bytes = 4096, .max_connections = 8};

struct ServeCommand {
  EngineFlags engine;
  ServeFlags front;
  std::string folder;  // of the model, without a flag before it
  std::optional<int32_t> control_port;
  std::string record_path;
  bool restart_on_failure = false;
  int32_t max_restarts = 5;
  std::string launcher;
  std::string engine_socket;  // behind a front: where this process answers

  void Run(runtime::ProcessWorld* world);

 private:
  void Check() const;
  void CheckFront() const;
  serve::HttpServer Listen() const;
  void LogServing(const std::string& name, const serve::HttpServer& http) const;
  void RunFrontProcess() const;
};

// What can be said before anything is read.
void ServeCommand::Check() const {
  front.Check(engine);
  if (!record_path.empty() && !control_port)
    Throw(ErrorKind::kInvalid,
          "--record-path needs --control-port, by which recordings are asked for");
  if (!record_path.empty() && !std::filesystem::is_directory(record_path))
    Throw(ErrorKind::kInvalid, "--record-path is {}, which is no folder", record_path);
  if (engine_socket.empty()) CheckFront();
}

// Behind a front: each of its requests on a connection, and some that only look.
serve::HttpServer ServeCommand::Listen() const {
  constexpr int64_t kMore = 64;
  if (engine_socket.empty()) return front.Listen();
  return serve::HttpServer(serve::LocalSocket{engine_socket},
                           {.max_connections = front.max_connections + kMore});
}

void ServeCommand::LogServing(const std::string& name, const serve::HttpServer& http) const {
  LogInfo("serving {}", front.PlaceText(name, http.port()));
}

// What cannot be done again and again.
void ServeCommand::CheckFront() const {
  if (!restart_on_failure) {
    if (!launcher.empty())
      Throw(ErrorKind::kInvalid, "--launcher starts what --restart-on-failure looks after");
    return;
  }
  if (comm::DetectLaunch(std::getenv) != comm::Launch::kAlone)
    Throw(ErrorKind::kUnsupported,
          "--restart-on-failure starts the ranks itself, and mpirun or srun has started this "
          "process as one of them: start wideload alone, with --launcher \"mpirun -n 4\"");
  const auto refuse = [](bool is_given, std::string_view option) {
    if (is_given)
      Throw(ErrorKind::kUnsupported,
            "{} writes at the end of a run, and --restart-on-failure may start several: give one "
            "of the two",
            option);
  };
  refuse(!engine.trace.empty(), "--trace");
  refuse(!engine.statistic_path.empty(), "--expert-statistic-path");
  refuse(std::getenv("EXPERT_STATISTIC_PATH") != nullptr, "EXPERT_STATISTIC_PATH");
}

void ServeCommand::RunFrontProcess() const {
  serve::HttpServer http = Listen();
  RunFront(
      http, {.keys = front.Keys(), .max_waiting = front.max_open_requests},
      {.argv = EngineArguments(launcher), .max_restarts = max_restarts}, front.DrainTime(), [&] {
        LogServing(front.ModelName(engine.model.empty() ? EmbeddedModelFolder() : engine.model),
                   http);
      });
  LogInfo("all requests are answered; the server has ended");
  ForgetInterrupt();
}

void ServeCommand::Run(runtime::ProcessWorld* world) {
  TakeModelFolder(folder, "the first argument", engine);
  Check();
  CatchInterrupts();
  if (restart_on_failure && engine_socket.empty()) return RunFrontProcess();
  serve::HttpServer http = Listen();
  std::optional<serve::HttpServer> control_http;
  if (control_port) control_http.emplace(kControlHost, *control_port, kControlLimits);
  FrontDoor door;
  Session session = StartSession(
      world, engine, [&](const Session& start, const runtime::EngineOptions& engine_options) {
        door.Open(front, start, engine_options);
        door.options.api.is_behind_front = !engine_socket.empty();
        return engine_options.max_seq_len;
      });
  door.NoteEngine(session);
  runtime::EngineLoop loop(*session.engine, door.tokenizer.get());
  ServeControl control(session, record_path);
  // Its requests use these two, however the run ends.
  const std::unique_ptr<serve::HttpServer, void (*)(serve::HttpServer*)> stops_control(
      control_http ? &*control_http : nullptr, [](serve::HttpServer* server) { server->Stop(); });
  const auto started = [&] {
    if (control_http) {
      control_http->Start(serve::ControlHandlers(loop, door.options.api.keys, control.Routes()));
      LogInfo("control routes are on http://{}:{}", kControlHost, control_http->port());
    }
    if (engine_socket.empty()) LogServing(door.model.name, http);
  };
  RunRecorded(session, [&] {
    serve::Serve(door.model, loop, http, door.options, started,
                 [&] { return InterruptSignal() != 0 || control.is_drain_asked(); });
    control.End(*session.engine);
  });
  if (engine_socket.empty()) LogInfo("all requests are answered; the server has ended");
  ForgetInterrupt();
}

}  // namespace

void AddServe(Command program) {
  const Command command =
      program.Subcommand("serve", "answer OpenAI's requests over HTTP, until SIGTERM or Ctrl-C");
  AddServeDisaggregated(command);
  ServeCommand& serve = RunsOnRanks<ServeCommand>(command);
  command.Add("MODEL", serve.folder, "folder of the model, as trtllm-serve has it; the same as -m");
  AddEngineFlags(command, serve.engine);
  AddBackendFlag(command);
  command.Add("--host", serve.front.host, "address to listen on").ShowDefault();
  command.Add("--port", serve.front.port, "port to listen on; 0: any that is free")
      .Range(0, 65535)
      .ShowDefault();
  AddServeFlags(command, serve.front);
  command
      .Add("--control-port", serve.control_port,
           "port on this machine alone for record, rebalance and drain; 0: any that is free")
      .Range(0, 65535);
  command.Add("--record-path", serve.record_path,
              "folder for the expert statistics that /dump_expert_distribution_record writes");
  command.Add("--restart-on-failure", serve.restart_on_failure,
              "run the engine in a process of its own, and start it again when it fails");
  command
      .Add("--max-restarts", serve.max_restarts,
           "restarts within 10 minutes; the server ends when the engine fails once more")
      .Positive()
      .ShowDefault();
  command.Add("--launcher", serve.launcher,
              "what starts the ranks of --restart-on-failure as processes: \"mpirun -n 4\"");
  command
      .Add("--engine-socket", serve.engine_socket,
           "name of the local socket on which the engine's process answers; set by "
           "--restart-on-failure")
      .Group("");
}

}  // namespace wideload::apps
