// `wideload serve`: answers OpenAI's requests over HTTP.
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "chat_flags.h"
#include "comm/mpi/launch.h"
#include "commands.h"
#include "embedded_model.h"
#include "file_flags.h"
#include "interrupt.h"
#include "kv/paged_cache.h"
#include "runtime/text_limits.h"
#include "sampling_flags.h"
#include "serve/server.h"
#include "serve_control.h"
#include "serve_front.h"
#include "session.h"
#include "tokenizer/tokenizer.h"
#include "version.h"

namespace wideload::apps {
namespace {

// Control routes have no other way in than from this machine.
constexpr const char* kControlHost = "127.0.0.1";
constexpr serve::HttpLimits kControlLimits{.body_bytes = 4096, .max_connections = 8};

struct ServeCommand {
  EngineFlags engine;
  std::string host = "localhost";
  int32_t port = 8000;
  std::string served_model_name;
  std::string api_key_file;
  std::string ssl_keyfile;
  std::string ssl_certfile;
  bool cache_salt_per_key = false;
  std::string chat_template;
  int64_t max_open_requests = 1024;
  int64_t max_open_tokens = 0;
  int64_t max_connections = 1024;
  double request_timeout_s = 0;
  double drain_timeout_s = 30;
  std::optional<int32_t> control_port;
  std::string record_path;
  bool restart_on_failure = false;
  int32_t max_restarts = 5;
  std::string launcher;
  std::string engine_socket;  // behind a front: where this process answers

  void Run(runtime::ProcessWorld* world);

 private:
  void Check();
  void CheckFront() const;
  std::optional<serve::TlsFiles> Tls() const;
  serve::ApiKeys Keys() const;
  serve::HttpServer Listen() const;
  std::string ModelName(const std::string& folder) const;
  void LogServing(const std::string& name, const serve::HttpServer& http) const;
  void RunFrontProcess() const;
  serve::ServerOptions Options(const runtime::EngineOptions& engine_options) const;
};

std::chrono::milliseconds Milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1e3));
}

serve::ServerOptions ServeCommand::Options(const runtime::EngineOptions& engine_options) const {
  // As many tokens as fill the caches of all groups so often are waited for: some minutes of work.
  constexpr int64_t kCachesOpen = 16;
  const int64_t cache_tokens = int64_t{engine_options.layout.dp} *
                               engine_options.num_micro_batches * engine_options.KvTokens();
  return {
      .api = {.version = kVersion,
              .keys = Keys(),
              .salts_by_key = cache_salt_per_key,
              .max_open_requests = max_open_requests,
              .max_open_tokens = max_open_tokens > 0 ? max_open_tokens : kCachesOpen * cache_tokens,
              .request_timeout = Milliseconds(request_timeout_s),
              .is_behind_front = !engine_socket.empty()},
      .drain_time = Milliseconds(drain_timeout_s)};
}

// The name of a folder, whatever the spelling of its path.
std::string NameOf(const std::string& folder) {
  return std::filesystem::weakly_canonical(folder).filename().string();
}

// The model's template; empty where it has none or one that cannot be used, which is said.
std::unique_ptr<const chat::ChatTemplate> OpenTemplate(const std::string& folder,
                                                       const std::string& file) {
  try {
    return std::make_unique<const chat::ChatTemplate>(OpenChatTemplate(folder, file));
  } catch (const Error& error) {
    if (!file.empty()) throw;
    LogWarn("chats are refused: {}", error.what());
    return nullptr;
  }
}

// What can be said before anything is read.
void ServeCommand::Check() {
  CheckFiles(engine,
             {Reads("--api-key-file", api_key_file), Reads("--ssl-certfile", ssl_certfile),
              Reads("--ssl-keyfile", ssl_keyfile), Reads("--chat-template", chat_template)});
  if (ssl_certfile.empty() != ssl_keyfile.empty())
    Throw(ErrorKind::kInvalid, "--ssl-certfile and --ssl-keyfile need each other");
  if (!record_path.empty() && !control_port)
    Throw(ErrorKind::kInvalid,
          "--record-path needs --control-port, by which recordings are asked for");
  if (!record_path.empty() && !std::filesystem::is_directory(record_path))
    Throw(ErrorKind::kInvalid, "--record-path is {}, which is no folder", record_path);
  if (cache_salt_per_key && api_key_file.empty())
    Throw(ErrorKind::kInvalid, "--cache-salt-per-key needs the keys of --api-key-file");
  if (engine_socket.empty()) CheckFront();
}

std::optional<serve::TlsFiles> ServeCommand::Tls() const {
  if (ssl_certfile.empty()) return std::nullopt;
  return serve::TlsFiles{.certificate = ssl_certfile, .key = ssl_keyfile};
}

serve::ApiKeys ServeCommand::Keys() const {
  return api_key_file.empty() ? serve::ApiKeys() : serve::ApiKeys::FromFile(api_key_file);
}

// Behind a front: each of its requests on a connection, and some that only look.
serve::HttpServer ServeCommand::Listen() const {
  constexpr int64_t kMore = 64;
  if (engine_socket.empty())
    return serve::HttpServer(host, port, {.max_connections = max_connections}, Tls());
  return serve::HttpServer(serve::LocalSocket{engine_socket},
                           {.max_connections = max_connections + kMore});
}

std::string ServeCommand::ModelName(const std::string& folder) const {
  return served_model_name.empty() ? NameOf(folder) : served_model_name;
}

void ServeCommand::LogServing(const std::string& name, const serve::HttpServer& http) const {
  LogInfo("serving {} on {}://{}:{}{}", name, Tls() ? "https" : "http", host, http.port(),
          api_key_file.empty() ? "" : ", for clients with a key");
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
  const serve::LocalSocket socket = NewEngineSocket();
  RunFront(
      http, {.engine = socket, .keys = Keys(), .max_waiting = max_open_requests},
      {.argv = EngineArguments(launcher, socket), .socket = socket, .max_restarts = max_restarts},
      Milliseconds(drain_timeout_s), [&] {
        LogServing(ModelName(engine.model.empty() ? EmbeddedModelFolder() : engine.model), http);
      });
  LogInfo("all requests are answered; the server has ended");
  ForgetInterrupt();
}

void ServeCommand::Run(runtime::ProcessWorld* world) {
  Check();
  CatchInterrupts();
  if (restart_on_failure && engine_socket.empty()) return RunFrontProcess();
  serve::HttpServer http = Listen();
  std::optional<serve::HttpServer> control_http;
  if (control_port) control_http.emplace(kControlHost, *control_port, kControlLimits);
  std::unique_ptr<const tokenizer::Tokenizer> tokenizer;
  std::unique_ptr<const chat::ChatTemplate> opened;
  serve::ServedModel model;
  serve::ServerOptions options;
  Session session = StartSession(
      world, engine, [&](const Session& start, const runtime::EngineOptions& engine_options) {
        tokenizer = std::make_unique<const tokenizer::Tokenizer>(
            tokenizer::Tokenizer::FromFile(start.folder));
        opened = OpenTemplate(start.folder, chat_template);
        model = {
            .name = ModelName(start.folder),
            .root = start.folder,
            .vocab_size = start.config.vocab_size,
            .tokenizer = tokenizer.get(),
            .grammars = std::make_shared<serve::GrammarCache>(
                std::make_shared<const grammar::TokenTrie>(*tokenizer, start.config.vocab_size)),
            .chat_template = opened.get(),
            .template_variables = chat::SpecialTokens(start.folder),
            .generation = start.generation,
            .eos_ids = ResolveEos({}, start, *tokenizer),
            .max_text_bytes = runtime::MaxTextBytes(*tokenizer, engine_options.max_seq_len),
            .now = LocalTime};
        ResolveSampling({}, start);  // refuses a generation_config.json that no request could use
        options = Options(engine_options);
        return engine_options.max_seq_len;
      });
  model.engine = session.engine->options();
  model.memory = session.memory;
  model.expert_bytes = session.bytes.expert;
  runtime::EngineLoop loop(*session.engine, tokenizer.get());
  ServeControl control(session, record_path);
  // Its requests use these two, however the run ends.
  const std::unique_ptr<serve::HttpServer, void (*)(serve::HttpServer*)> stops_control(
      control_http ? &*control_http : nullptr, [](serve::HttpServer* server) { server->Stop(); });
  const auto started = [&] {
    if (control_http) {
      control_http->Start(serve::ControlHandlers(loop, options.api.keys, control.Routes()));
      LogInfo("control routes are on http://{}:{}", kControlHost, control_http->port());
    }
    if (engine_socket.empty()) LogServing(model.name, http);
  };
  RunRecorded(session, [&] {
    serve::Serve(model, loop, http, options, started,
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
  ServeCommand& serve = RunsOnRanks<ServeCommand>(command);
  AddEngineFlags(command, serve.engine);
  command.Add("--host", serve.host, "address to listen on").ShowDefault();
  command.Add("--port", serve.port, "port to listen on; 0: any that is free")
      .Range(0, 65535)
      .ShowDefault();
  command.Add("--served-model-name", serve.served_model_name,
              "name under which clients ask for the model (default: its folder's)");
  command.Add("--api-key-file", serve.api_key_file,
              "file with the keys that clients may show, one a line; without it none is asked for");
  command.Add("--ssl-keyfile", serve.ssl_keyfile,
              "file with the private key (PEM) of --ssl-certfile; clients then speak TLS");
  command.Add("--ssl-certfile", serve.ssl_certfile,
              "file with the certificate (PEM), and those that it is signed by after it");
  command.Add("--cache-salt-per-key", serve.cache_salt_per_key,
              "clients of different keys share no prefixes in the KV cache");
  AddChatTemplateFlag(command, serve.chat_template);
  command
      .Add("--max-open-requests", serve.max_open_requests,
           "requests under way at most; more are told to come later (429)")
      .Positive()
      .ShowDefault();
  command
      .Add("--max-open-tokens", serve.max_open_tokens,
           "tokens of prompts and max_tokens of all of these together at most (default: 16 times "
           "what the KV caches hold)")
      .Positive();
  command.Add("--max-connections", serve.max_connections, "connections at most")
      .Positive()
      .ShowDefault();
  command
      .Add("--request-timeout", serve.request_timeout_s,
           "seconds after which a request ends with what it has; 0: never")
      .Range(0, 1e9)
      .ShowDefault();
  command
      .Add("--drain-timeout", serve.drain_timeout_s,
           "seconds that requests under way get when the server is asked to end")
      .Range(0, 1e9)
      .ShowDefault();
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
