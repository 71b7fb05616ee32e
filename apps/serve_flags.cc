#include "serve_flags.h"

#include <filesystem>

#include "base/error.h"
#include "base/log.h"
#include "chat_flags.h"
#include "file_flags.h"
#include "runtime/text_limits.h"
#include "sampling_flags.h"
#include "version.h"

namespace wideload::apps {
namespace {

std::chrono::milliseconds Milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1e3));
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

}  // namespace

serve::ServerOptions ServeFlags::Options(const runtime::EngineOptions& engine_options) const {
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
              .request_timeout = Milliseconds(request_timeout_s)},
      .drain_time = DrainTime()};
}

void ServeFlags::Check(const EngineFlags& engine) const {
  CheckFiles(engine,
             {Reads("--api-key-file", api_key_file), Reads("--ssl-certfile", ssl_certfile),
              Reads("--ssl-keyfile", ssl_keyfile), Reads("--chat-template", chat_template)});
  if (ssl_certfile.empty() != ssl_keyfile.empty())
    Throw(ErrorKind::kInvalid, "--ssl-certfile and --ssl-keyfile need each other");
  if (cache_salt_per_key && api_key_file.empty())
    Throw(ErrorKind::kInvalid, "--cache-salt-per-key needs the keys of --api-key-file");
}

std::optional<serve::TlsFiles> ServeFlags::Tls() const {
  if (ssl_certfile.empty()) return std::nullopt;
  return serve::TlsFiles{.certificate = ssl_certfile, .key = ssl_keyfile};
}

serve::HttpServer ServeFlags::Listen() const {
  return serve::HttpServer(host, port, {.max_connections = max_connections}, Tls());
}

serve::ApiKeys ServeFlags::Keys() const {
  return api_key_file.empty() ? serve::ApiKeys() : serve::ApiKeys::FromFile(api_key_file);
}

std::chrono::milliseconds ServeFlags::DrainTime() const { return Milliseconds(drain_timeout_s); }

std::string ServeFlags::ModelName(const std::string& folder) const {
  return served_model_name.empty() ? NameOf(folder) : served_model_name;
}

std::string ServeFlags::PlaceText(const std::string& name, int32_t open_port) const {
  return fmt::format("{} on {}://{}:{}{}", name, Tls() ? "https" : "http", host, open_port,
                     api_key_file.empty() ? "" : ", for clients with a key");
}

void AddServeFlags(Command command, ServeFlags& flags) {
  command.Add("--served-model-name", flags.served_model_name,
              "name under which clients ask for the model (default: its folder's)");
  command.Add("--api-key-file", flags.api_key_file,
              "file with the keys that clients may show, one a line; without it none is asked for");
  command.Add("--ssl-keyfile", flags.ssl_keyfile,
              "file with the private key (PEM) of --ssl-certfile; clients then speak TLS");
  command.Add("--ssl-certfile", flags.ssl_certfile,
              "file with the certificate (PEM), and those that it is signed by after it");
  command.Add("--cache-salt-per-key", flags.cache_salt_per_key,
              "clients of different keys share no prefixes in the KV cache");
  AddChatTemplateFlag(command, flags.chat_template);
  command
      .Add("--max-open-requests", flags.max_open_requests,
           "requests under way at most; more are told to come later (429)")
      .Positive()
      .ShowDefault();
  command
      .Add("--max-open-tokens", flags.max_open_tokens,
           "tokens of prompts and max_tokens of all of these together at most (default: 16 times "
           "what the KV caches hold)")
      .Positive();
  command.Add("--max-connections", flags.max_connections, "connections at most")
      .Positive()
      .ShowDefault();
  command
      .Add("--request-timeout", flags.request_timeout_s,
           "seconds after which a request ends with what it has; 0: never")
      .Range(0, 1e9)
      .ShowDefault();
  command
      .Add("--drain-timeout", flags.drain_timeout_s,
           "seconds that requests under way get when the server is asked to end")
      .Range(0, 1e9)
      .ShowDefault();
}

void FrontDoor::Open(const ServeFlags& flags, const Session& session,
                     const runtime::EngineOptions& engine_options) {
  tokenizer =
      std::make_unique<const tokenizer::Tokenizer>(tokenizer::Tokenizer::FromFile(session.folder));
  chat_template = OpenTemplate(session.folder, flags.chat_template);
  model = {.name = flags.ModelName(session.folder),
           .root = session.folder,
           .vocab_size = session.config.vocab_size,
           .tokenizer = tokenizer.get(),
           .grammars = std::make_shared<grammar::GrammarCache>(
               std::make_shared<const grammar::TokenTrie>(*tokenizer, session.config.vocab_size)),
           .chat_template = chat_template.get(),
           .template_variables = chat::SpecialTokens(session.folder),
           .generation = session.generation,
           .eos_ids = ResolveEos({}, session, *tokenizer),
           .max_text_bytes = runtime::MaxTextBytes(*tokenizer, engine_options.max_seq_len),
           .now = LocalTime};
  ResolveSampling({}, session);  // refuses a generation_config.json that no request could use
  options = flags.Options(engine_options);
}

void FrontDoor::NoteEngine(const Session& session) {
  model.engine = session.engine->options();
  model.memory = session.memory;
  model.expert_bytes = session.bytes.expert;
}

}  // namespace wideload::apps
