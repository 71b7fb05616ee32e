// What `serve` and `serve disaggregated` share: the flags of the front door, and the model as
// requests need to know it.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "command_line.h"
#include "serve/server.h"
#include "session.h"
#include "tokenizer/tokenizer.h"

namespace wideload::apps {

struct ServeFlags {
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

  // What can be said before anything is read. Errors: kInvalid; what files are not there.
  void Check(const EngineFlags& engine) const;
  // Errors: as HttpServer.
  serve::HttpServer Listen() const;
  serve::ApiKeys Keys() const;
  std::chrono::milliseconds DrainTime() const;
  // Under which clients ask for the model of the folder.
  std::string ModelName(const std::string& folder) const;
  // Of requests to an engine with these options.
  serve::ServerOptions Options(const runtime::EngineOptions& engine_options) const;
  // "NAME on https://HOST:PORT, for clients with a key"
  std::string PlaceText(const std::string& name, int32_t open_port) const;

 private:
  std::optional<serve::TlsFiles> Tls() const;
};

// All but host and port.
void AddServeFlags(Command command, ServeFlags& flags);

// What serves a model beside its engine. Does not move.
struct FrontDoor {
  std::unique_ptr<const tokenizer::Tokenizer> tokenizer;
  std::unique_ptr<const chat::ChatTemplate> chat_template;
  serve::ServedModel model;
  serve::ServerOptions options;

  // Of a session whose engine will have these options, before it is loaded. Errors: what the
  // model's tokenizer, template or generation_config.json is refused for.
  void Open(const ServeFlags& flags, const Session& session,
            const runtime::EngineOptions& engine_options);
  // Once it is loaded.
  void NoteEngine(const Session& session);
};

}  // namespace wideload::apps
