// `wideload serve`: answers OpenAI's requests over HTTP.
#include <filesystem>
#include <memory>

#include "base/error.h"
#include "base/log.h"
#include "commands.h"
#include "interrupt.h"
#include "serve/server.h"
#include "serve_control.h"
#include "serve_disaggregated.h"
#include "serve_flags.h"
#include "session.h"

namespace wideload::apps {
namespace {

// Control routes have no other way in than from this machine.
constexpr const char* kControlHost = "127.0.0.1";
constexpr serve::HttpLimits kControlLimits{.body_bytes = 4096, .max_connections = 8};

struct ServeCommand {
  EngineFlags engine;
  ServeFlags front;
  std::optional<int32_t> control_port;
  std::string record_path;

  void Run(runtime::ProcessWorld* world);

 private:
  void Check() const;
};

// What can be said before anything is read.
void ServeCommand::Check() const {
  front.Check(engine);
  if (!record_path.empty() && !control_port)
    Throw(ErrorKind::kInvalid,
          "--record-path needs --control-port, by which recordings are asked for");
  if (!record_path.empty() && !std::filesystem::is_directory(record_path))
    Throw(ErrorKind::kInvalid, "--record-path is {}, which is no folder", record_path);
}

void ServeCommand::Run(runtime::ProcessWorld* world) {
  Check();
  CatchInterrupts();
  serve::HttpServer http(front.host, front.port, {.max_connections = front.max_connections},
                         front.Tls());
  std::optional<serve::HttpServer> control_http;
  if (control_port) control_http.emplace(kControlHost, *control_port, kControlLimits);
  FrontDoor door;
  Session session = StartSession(
      world, engine, [&](const Session& start, const runtime::EngineOptions& engine_options) {
        door.Open(front, start, engine_options);
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
    LogInfo("serving {}", front.PlaceText(door.model.name, http.port()));
  };
  RunRecorded(session, [&] {
    serve::Serve(door.model, loop, http, door.options, started,
                 [&] { return InterruptSignal() != 0 || control.is_drain_asked(); });
    control.End(*session.engine);
  });
  LogInfo("all requests are answered; the server has ended");
  ForgetInterrupt();
}

}  // namespace

void AddServe(Command program) {
  const Command command =
      program.Subcommand("serve", "answer OpenAI's requests over HTTP, until SIGTERM or Ctrl-C");
  AddServeDisaggregated(command);
  ServeCommand& serve = RunsOnRanks<ServeCommand>(command);
  AddEngineFlags(command, serve.engine);
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
}

}  // namespace wideload::apps
