#include "serve/front.h"

#include <utility>

#include "runtime/engine_loop.h"
#include "serve/api.h"
#include "serve/metrics.h"
#include "serve/refusal.h"

namespace wideload::serve {
namespace {

// Engines that a request is given to at most: one that ends them all is not tried for ever.
constexpr int kMaxTries = 3;
constexpr std::chrono::milliseconds kBusyPause{200};

HttpResponse Restarting() {
  return RefusalResponse({.status = 503,
                          .message = "the engine is being started again",
                          .code = "restarting",
                          .retry_after_s = 1});
}

bool IsMetrics(const std::string& path) {
  return path == "/metrics" || path == "/prometheus/metrics";
}

}  // namespace

// A request that is not answered.
struct Front::Open {
  HttpExchange exchange;
  uint64_t number;
  int num_tries = 0;       // engines that have had it
  bool is_closed = false;  // it is answered, or its client has gone
  bool has_begun = false;  // the client has some of the answer
  std::string content_type = {};
  std::string tail = {};  // of an answer in pieces: what is no whole event yet
  std::shared_ptr<HttpCall> call = {};

  const HttpRequest& request() const { return exchange.request(); }
  bool is_get() const { return request().method == "GET"; }
};

Front::Front(FrontOptions options) : options_(std::move(options)) {}
Front::~Front() = default;

HttpHandlers Front::Handlers() {
  return {.check = [this](const HttpRequest& request) { return Check(request); },
          .handle = [this](const HttpExchange& exchange) { Handle(exchange); },
          .refuse =
              [](int status, const std::string& message) {
                return RefusalResponse({.status = status, .message = message, .code = "bad_http"});
              },
          .note = [](const HttpRequest&, int) {}};
}

std::optional<HttpResponse> Front::Check(const HttpRequest& request) const {
  if (auto refusal = Api::CheckRoute(options_.keys, request)) return refusal;
  if (request.method == "GET" || !is_draining_) return std::nullopt;
  return RefusalResponse(ShuttingDown());
}

void Front::Handle(const HttpExchange& exchange) {
  const HttpRequest& request = exchange.request();
  if (request.path == "/health") return exchange.Respond({.body = "{}"});
  if (request.path == "/ready" && is_draining_)
    return exchange.Respond(RefusalResponse(ShuttingDown()));
  if (request.method == "GET" && !is_up_)
    return exchange.Respond(IsMetrics(request.path)
                                ? HttpResponse{.content_type = kMetricsType, .body = MetricsText()}
                                : Restarting());
  ++num_open_;
  client_.Post([this, exchange] { Take(exchange); });
}

void Front::Take(const HttpExchange& exchange) {
  const auto open = std::make_shared<Open>(Open{.exchange = exchange, .number = next_number_++});
  open_.emplace(open->number, open);
  exchange.OnGone([this, known = std::weak_ptr(open)] {
    client_.Post([this, known] {
      if (const OpenPtr gone = known.lock()) Close(gone);
    });
  });
  ForwardOrWait(open);
}

void Front::ForwardOrWait(const OpenPtr& open) {
  if (open->is_closed) return;
  if (is_up_) return Forward(open);
  if (open->is_get()) return Fail(open, 503, "the engine is being started again");
  if (open->num_tries == 0 && std::ssize(waiting_) >= options_.max_waiting)
    return Fail(open, 429, "too many requests wait for the engine; try again later");
  waiting_.emplace(open->number, open);
}

void Front::Forward(const OpenPtr& open) {
  ++open->num_tries;
  open->call = client_.Ask(
      engine_, open->request(),
      {.whole = [this, open](HttpResponse response) { TakeWhole(open, std::move(response)); },
       .begun = [open](const std::string& type) { open->content_type = type; },
       .piece = [this, open](std::string_view piece) { TakePiece(*open, piece); },
       .ended =
           [this, open] {
             TakePiece(*open, "\n\n");
             open->exchange.End();
             Close(open);
           },
       .lost = [this, open](bool was_taken) { TakeLoss(open, was_taken); }});
}

void Front::TakeWhole(const OpenPtr& open, HttpResponse response) {
  // It had been let in before: what came meanwhile must not take its place.
  if (response.status == 429 && open->num_tries > 1) {
    --open->num_tries;
    open->call.reset();
    return client_.PostAfter(kBusyPause, [this, open] { ForwardOrWait(open); });
  }
  // Somebody has asked the engine to end, and not this server.
  if (response.status == 503 && !open->is_get()) return TakeLoss(open, false);
  if (response.status == 200 && IsMetrics(open->request().path)) response.body += MetricsText();
  open->exchange.Respond(std::move(response));
  Close(open);
}

// Whole events only: an engine may end in the middle of one.
void Front::TakePiece(Open& open, std::string_view piece) {
  open.tail += piece;
  const size_t end = open.tail.rfind("\n\n");
  if (end == std::string::npos || open.tail == "\n\n") return;
  if (!std::exchange(open.has_begun, true)) open.exchange.BeginStream(open.content_type);
  open.exchange.Write(open.tail.substr(0, end + 2));
  open.tail.erase(0, end + 2);
}

void Front::TakeLoss(const OpenPtr& open, bool was_taken) {
  open->call.reset();
  is_up_ = false;  // until somebody has looked
  if (open->has_begun) return Fail(open, 500, runtime::kEngineStopped);
  if (!was_taken) --open->num_tries;
  if (open->num_tries >= kMaxTries) return Fail(open, 500, runtime::kEngineStopped);
  open->tail.clear();
  ForwardOrWait(open);
}

void Front::Fail(const OpenPtr& open, int status, const std::string& message) {
  if (open->is_closed) return;
  const Refusal refusal{.status = status,
                        .message = message,
                        .code = status == 500   ? "engine_error"
                                : status == 429 ? "overloaded"
                                                : "restarting",
                        .retry_after_s = status == 500 ? 0 : 1};
  if (open->has_begun) {
    open->exchange.Write(ErrorEvent(refusal, open->request().path == "/v1/responses"));
    open->exchange.End();
  } else {
    open->exchange.Respond(RefusalResponse(refusal));
  }
  Close(open);
}

void Front::Close(const OpenPtr& open) {
  if (std::exchange(open->is_closed, true)) return;
  if (const auto call = std::exchange(open->call, {})) LocalClient::Cancel(*call);
  waiting_.erase(open->number);
  open_.erase(open->number);
  --num_open_;
}

void Front::SetUp(const LocalSocket& engine) {
  is_up_ = true;
  // What is sent to the last one meanwhile comes back by TakeLoss.
  client_.Post([this, engine] {
    engine_ = engine;
    for (const auto& [number, open] : std::exchange(waiting_, {})) ForwardOrWait(open);
  });
}

void Front::SetDown() { is_up_ = false; }

void Front::EndAll(const std::string& message) {
  client_.Post([this, message] {
    for (const auto& [number, open] : std::map(open_))
      Fail(open, open->has_begun ? 500 : 503, message);
  });
}

std::string Front::MetricsText() const {
  return fmt::format(
      "# HELP wideload_engine_up Whether an engine answers.\n"
      "# TYPE wideload_engine_up gauge\n"
      "wideload_engine_up {}\n"
      "# HELP wideload_engine_restarts_total Starts of an engine after one has failed.\n"
      "# TYPE wideload_engine_restarts_total counter\n"
      "wideload_engine_restarts_total {}\n",
      is_up_ ? 1 : 0, num_restarts_.load());
}

}  // namespace wideload::serve
