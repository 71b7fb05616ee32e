// Serves an engine over HTTP until it is asked to end, and lets what is under way come to its end.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "runtime/job_runner.h"
#include "serve/api.h"
#include "serve/http_server.h"
#include "serve/served_model.h"

namespace wideload::serve {

struct ServerOptions {
  ApiOptions api;
  std::chrono::milliseconds drain_time{30'000};  // for what is under way when the end is asked for
};

// Answers on `http`, which has not started, requests for `model`, whose engine or engines `runner`
// has, until `is_ending` says so (asked every 100 ms at least); then takes no more, waits for those
// under way, and returns, with `http` stopped. `started` is called once requests are taken. Of the
// engine's thread. Errors: as HttpServer::Start and JobRunner::Step; clients have been told.
void Serve(const ServedModel& model, runtime::JobRunner& runner, HttpServer& http,
           const ServerOptions& options, const std::function<void()>& started,
           const std::function<bool()>& is_ending);

}  // namespace wideload::serve
