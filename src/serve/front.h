// What stands between clients and an engine's process that may end and be started again: has the
// clients' requests until their answers have begun, and asks the next engine where one has ended.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>

#include "serve/api_keys.h"
#include "serve/http_server.h"
#include "serve/local_client.h"

namespace wideload::serve {

// What it is made of.
struct FrontOptions {
  ApiKeys keys;               // that clients may show; the engine's process looks at them, too
  int64_t max_waiting = 256;  // requests that wait for an engine; more are answered with 429
};

// Requests are kept and forwarded on a thread of its own. The other functions: any thread.
class Front {
 public:
  // Starts the thread; no engine is up yet.
  explicit Front(FrontOptions options);
  // Once the HTTP server has stopped, and before it is destroyed.
  ~Front();
  Front(const Front&) = delete;
  Front& operator=(const Front&) = delete;

  // For the HTTP server.
  HttpHandlers Handlers();

  // An engine answers there, as Serve does; what waits for one is sent to it in order of arrival.
  void SetUp(const LocalSocket& engine);
  // None does: it has ended.
  void SetDown();
  // What SetUp and SetDown have said, or a connection that broke.
  bool is_up() const { return is_up_; }
  // For /metrics.
  void CountRestart() { ++num_restarts_; }

  // From now on requests are answered with 503.
  void Drain() { is_draining_ = true; }
  // Ends all that is under way: with 503, or with an error event where an answer has begun.
  void EndAll(const std::string& message);
  // Requests that have come and are not answered.
  int64_t num_open() const { return num_open_; }

 private:
  struct Open;
  using OpenPtr = std::shared_ptr<Open>;

  std::optional<HttpResponse> Check(const HttpRequest& request) const;
  void Handle(const HttpExchange& exchange);
  // On the client's thread, all that follow.
  void Take(const HttpExchange& exchange);
  void Forward(const OpenPtr& open);
  void ForwardOrWait(const OpenPtr& open);
  void TakeWhole(const OpenPtr& open, HttpResponse response);
  void TakePiece(Open& open, std::string_view piece);
  void TakeLoss(const OpenPtr& open, bool was_taken);
  void Fail(const OpenPtr& open, int status, const std::string& message);
  void Close(const OpenPtr& open);
  std::string MetricsText() const;

  FrontOptions options_;
  std::atomic<bool> is_up_{false};
  std::atomic<bool> is_draining_{false};
  std::atomic<int64_t> num_open_{0};
  std::atomic<int64_t> num_restarts_{0};
  uint64_t next_number_ = 0;
  std::map<uint64_t, OpenPtr> open_;     // all that are not answered, by arrival
  std::map<uint64_t, OpenPtr> waiting_;  // those that no engine has
  LocalSocket engine_;                   // the last one that was up
  LocalClient client_;                   // the last member: its thread uses the others
};

}  // namespace wideload::serve
