#include "serve/control.h"

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"

namespace wideload::serve {
namespace {

constexpr const char* kHealthPath = "/health";

class ControlRoutes {
 public:
  ControlRoutes(runtime::EngineLoop& loop, const ApiKeys& keys, std::vector<ControlRoute> routes)
      : loop_(loop), keys_(keys), routes_(std::move(routes)) {}

  std::optional<HttpResponse> Check(const HttpRequest& request) const {
    if (!request.origin.empty())
      return RefusalResponse({.status = 403,
                              .message = "web pages have no access to these routes",
                              .code = "origin_not_allowed"});
    if (request.path == kHealthPath) return CheckMethod(request, "GET");
    if (!keys_.empty() && !keys_.Find(request.authorization)) return RefusalResponse(NoKey());
    if (Find(request.path) != nullptr) return CheckMethod(request, "POST");
    return RefusalResponse(
        {.status = 404, .message = "there is no such route", .code = "unknown_route"});
  }

  void Handle(const HttpExchange& exchange) const {
    if (exchange.request().path == kHealthPath) return exchange.Respond({.body = "{}"});
    const ControlRoute& route = *Find(exchange.request().path);
    loop_.Post([&route, exchange](runtime::Engine* engine) {
      exchange.Respond(engine != nullptr ? Act(route, *engine)
                                         : RefusalResponse({.status = 503,
                                                            .message = "the server is ending",
                                                            .code = "shutting_down"}));
    });
  }

 private:
  static std::optional<HttpResponse> CheckMethod(const HttpRequest& request, const char* allowed) {
    if (request.method == allowed) return std::nullopt;
    HttpResponse response =
        RefusalResponse({.status = 405,
                         .message = fmt::format("this route answers {} only", allowed),
                         .code = "method_not_allowed"});
    response.headers.emplace_back("Allow", allowed);
    return response;
  }
  const ControlRoute* Find(const std::string& path) const {
    const auto found = std::ranges::find(routes_, path, &ControlRoute::path);
    return found != routes_.end() ? &*found : nullptr;
  }
  static HttpResponse Act(const ControlRoute& route, runtime::Engine& engine) {
    try {
      const std::string done = route.act(engine);
      LogInfo("{}: {}", route.path, done);
      return {.body = DumpJson({{"done", done}})};
    } catch (const Error& error) {
      return RefusalResponse({.status = 409, .message = error.what(), .code = "cannot_be_done"});
    } catch (const std::exception& failure) {
      LogWarn("{}: {}", route.path, failure.what());
      return RefusalResponse({.status = 500, .message = "it has failed; the log says why"});
    }
  }

  runtime::EngineLoop& loop_;
  const ApiKeys& keys_;
  std::vector<ControlRoute> routes_;
};

}  // namespace

HttpHandlers ControlHandlers(runtime::EngineLoop& loop, const ApiKeys& keys,
                             std::vector<ControlRoute> routes) {
  // Owners: the handlers.
  const auto control = std::make_shared<const ControlRoutes>(loop, keys, std::move(routes));
  return {.check = [control](const HttpRequest& request) { return control->Check(request); },
          .handle = [control](const HttpExchange& exchange) { control->Handle(exchange); },
          .refuse =
              [](int status, const std::string& message) {
                return RefusalResponse({.status = status, .message = message, .code = "bad_http"});
              },
          .note = [](const HttpRequest&, int) {}};
}

}  // namespace wideload::serve
