// Routes that change what a server does, for the people who run it: on a listener of their own, to
// which only this machine has a way. What a route does runs on the engine's thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "runtime/engine_loop.h"
#include "serve/api_keys.h"
#include "serve/http_server.h"

namespace wideload::serve {

// POST to `path`, without a body that anybody reads.
struct ControlRoute {
  std::string path;
  // Called on the engine's thread between two iterations. Returns what has been done, in words.
  // Errors: what it throws is why it cannot be done, for the client (409).
  std::function<std::string(runtime::Engine& engine)> act;
};

// Serves `routes`, and GET /health. Where there are keys each request needs one; those that a
// script of a web page sends (they have an Origin) are refused. `loop` and `keys` must outlive the
// HTTP server, whose exchanges wait for Steps of the loop; once its requests have been ended, they
// get 503.
HttpHandlers ControlHandlers(runtime::EngineLoop& loop, const ApiKeys& keys,
                             std::vector<ControlRoute> routes);

}  // namespace wideload::serve
