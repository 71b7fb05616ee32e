// The routes of the server: who may ask, what is asked, and who answers. Requests are read and made
// token ids on threads of their own, run by the engine or engines, and answered on the HTTP
// server's thread.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/job_runner.h"
#include "serve/answer.h"
#include "serve/api_keys.h"
#include "serve/http_server.h"
#include "serve/metrics.h"
#include "serve/served_model.h"
#include "serve/task_queue.h"

namespace wideload::serve {

// What the routes depend on beside the model.
struct ApiOptions {
  std::string version;                           // of the program
  ApiKeys keys;                                  // that clients may show
  bool salts_by_key = false;                     // clients of different keys share no prefixes
  int64_t max_open_requests = 256;               // more are answered with 429
  int64_t max_open_tokens = 1 << 20;             // prompt and max_tokens of those, together
  std::chrono::milliseconds request_timeout{0};  // from arrival; 0: none
  // A Front stands before it: when the engine fails connections break, and it tells the clients.
  bool is_behind_front = false;
  int num_threads = 2;  // that read requests
};

class Api {
 public:
  // `model` and `runner` must outlive it.
  Api(const ServedModel& model, runtime::JobRunner& runner, ApiOptions options);
  ~Api();
  Api(const Api&) = delete;
  Api& operator=(const Api&) = delete;

  // What a client is told that has no key or asks for no route; nothing when it may ask.
  static std::optional<HttpResponse> CheckRoute(const ApiKeys& keys, const HttpRequest& request);

  // For the HTTP server, whose thread calls them; they must not be called once this has ended.
  HttpHandlers Handlers();
  // How many connections it has, for the metrics. Set before it starts.
  void SetConnections(std::function<int64_t()> num_connections) {
    num_connections_ = std::move(num_connections);
  }

  // Any thread. From now on requests are answered with 503.
  void Drain() { is_draining_ = true; }
  // Ends the threads that read requests; what they had not read is not answered.
  void StopReading() { readers_.Stop(); }
  // Any thread. Requests that have come and are not answered.
  int64_t num_open() const { return counts_->num_requests; }

 private:
  struct Route;
  // Of the requests under way.
  struct Counts {
    std::atomic<int64_t> num_requests{0};
    std::atomic<int64_t> num_tokens{0};
  };
  struct Ticket;  // counts a request as under way for as long as it lives
  struct Open;    // a request under way whose jobs the engine has
  static std::span<const Route> Routes();
  static const Route* FindRoute(std::string_view method, std::string_view path);
  static bool HasPath(const Route& route, std::string_view path);

  std::optional<HttpResponse> Check(const HttpRequest& request);
  void Handle(const HttpExchange& exchange);

  // On a thread that reads requests.
  void Read(const HttpExchange& exchange, Operation operation,
            const std::shared_ptr<Ticket>& ticket);
  std::optional<Refusal> Carry(const HttpExchange& exchange, Operation operation,
                               const std::shared_ptr<Ticket>& ticket);
  std::string WithoutFolder(std::string text) const;
  std::optional<Refusal> CheckModel(const std::string& name) const;
  HttpResponse Tokenize(const ApiRequest& request) const;
  HttpResponse Detokenize(const ApiRequest& request) const;
  HttpResponse ApplyTemplate(const ApiRequest& request) const;
  std::optional<Refusal> Generate(const HttpExchange& exchange, Operation operation,
                                  ApiRequest request, const std::shared_ptr<Ticket>& ticket);
  runtime::DeltaSink SinkOf(const std::shared_ptr<Open>& open, const HttpExchange& exchange,
                            size_t choice);

  // Answers once the engine has made a token.
  void HealthGenerate(const HttpExchange& exchange);
  HttpResponse Health(const HttpRequest& request);
  HttpResponse Ready(const HttpRequest& request);
  HttpResponse Version(const HttpRequest& request);
  HttpResponse Models(const HttpRequest& request);
  HttpResponse Model(const HttpRequest& request);
  HttpResponse TokenizerInfo(const HttpRequest& request);
  HttpResponse ServerInfo(const HttpRequest& request);
  HttpResponse MetricsText(const HttpRequest& request);
  HttpResponse OpenApi(const HttpRequest& request);
  HttpResponse ChatPage(const HttpRequest& request);
  HttpResponse DashboardPage(const HttpRequest& request);
  const runtime::EngineMonitor* MonitorOf(const HttpRequest& request, size_t& engine) const;
  HttpResponse DashboardData(const HttpRequest& request);
  HttpResponse DashboardExperts(const HttpRequest& request);

  const ServedModel& model_;
  runtime::JobRunner& runner_;
  ApiOptions options_;
  Metrics metrics_;
  std::function<int64_t()> num_connections_;
  const int64_t created_;  // seconds since 1970
  const uint64_t random_;  // of this start: for seeds and ids
  std::atomic<uint64_t> num_requests_{0};
  const std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();
  std::atomic<bool> is_draining_{false};
  TaskQueue readers_;  // the last member: its threads use the others
};

}  // namespace wideload::serve
