// `wideload serve --restart-on-failure`: the process that clients talk to, and that of the engine.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "engine_keeper.h"
#include "serve/front.h"
#include "serve/http_server.h"

namespace wideload::apps {

// The command line of the engine's process: that of this process, after `launcher`, words that are
// separated by blanks and start a program as the ranks of a run; empty: it is started by itself.
std::vector<std::string> EngineArguments(const std::string& launcher);

// Starts the engine, then answers on `http` until SIGTERM or SIGINT, or until the engine ends as it
// was asked to; requests under way get `drain_time`. `started` is called once requests are taken.
// Errors: as EngineKeeper; clients have been told.
void RunFront(serve::HttpServer& http, serve::FrontOptions options, EngineProcess process,
              std::chrono::milliseconds drain_time, const std::function<void()>& started);

}  // namespace wideload::apps
