#include "serve/api.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <ctime>
#include <limits>
#include <random>

#include "base/error.h"
#include "base/log.h"
#include "serve/context_metrics.h"
#include "serve/dashboard_data.h"
#include "serve/engine_metrics.h"
#include "serve/openapi.h"
#include "serve/server_info.h"
#include "serve/web_page.h"

namespace wideload::serve {
namespace {

using Clock = std::chrono::steady_clock;

int64_t Now() { return static_cast<int64_t>(std::time(nullptr)); }

uint64_t RandomNumber() {
  std::random_device device;
  return (uint64_t{device()} << 32) ^ device();
}

// Of one model; its name comes behind it.
constexpr std::string_view kModelPath = "/v1/models/{model}";
constexpr std::string_view kModelPrefix = kModelPath.substr(0, kModelPath.find('{'));

const char* IdPrefix(Operation operation) {
  return operation == kChat ? "chatcmpl-" : operation == kResponses ? "resp_" : "cmpl-";
}

HttpResponse JsonResponse(const Json& json) { return {.body = DumpJson(json)}; }

Refusal Busy(const std::string& what) {
  return {.status = 429,
          .message = what + "; try again later",
          .code = "overloaded",
          .retry_after_s = 1};
}

HttpResponse NoSuchEngine(size_t num_engines) {
  return RefusalResponse(
      {.status = 404,
       .message = fmt::format("there are no figures of that engine; the query may be generation=N, "
                              "N of the {} that generate",
                              num_engines),
       .param = "generation",
       .code = "unknown_engine"});
}

}  // namespace

struct Api::Route {
  std::string_view method, path;
  unsigned operation = 0;  // of a POST: read and carried out by the readers
  HttpResponse (Api::*get)(const HttpRequest& request) = nullptr;
  bool is_public = false;  // needs no key: it tells nothing of the model or its use
};

std::span<const Api::Route> Api::Routes() {
  static constexpr std::array kRoutes = {
      Route{"POST", "/v1/completions", kCompletion},
      Route{"POST", "/v1/chat/completions", kChat},
      Route{"POST", "/v1/responses", kResponses},
      Route{"POST", "/tokenize", kTokenize},
      Route{"POST", "/detokenize", kDetokenize},
      Route{"POST", "/apply-template", kApplyTemplate},
      Route{"GET", "/v1/models", 0, &Api::Models},
      Route{"GET", kModelPath, 0, &Api::Model},
      Route{"GET", "/health", 0, &Api::Health, true},
      Route{"GET", "/health_generate"},
      Route{"GET", "/ready", 0, &Api::Ready},
      Route{"GET", "/version", 0, &Api::Version},
      Route{"GET", "/server_info", 0, &Api::ServerInfo},
      Route{"GET", "/tokenizer_info", 0, &Api::TokenizerInfo},
      Route{"GET", "/metrics", 0, &Api::MetricsText},
      Route{"GET", "/prometheus/metrics", 0, &Api::MetricsText},
      Route{"GET", "/openapi.json", 0, &Api::OpenApi},
      Route{"GET", "/", 0, &Api::ChatPage, true},
      Route{"GET", "/dashboard", 0, &Api::DashboardPage, true},
      Route{"GET", "/dashboard/data", 0, &Api::DashboardData},
      Route{"GET", "/dashboard/experts", 0, &Api::DashboardExperts},
  };
  return kRoutes;
}

bool Api::HasPath(const Route& route, std::string_view path) {
  if (route.path != kModelPath) return route.path == path;
  return path.size() > kModelPrefix.size() && path.starts_with(kModelPrefix);
}

const Api::Route* Api::FindRoute(std::string_view method, std::string_view path) {
  for (const Route& route : Routes())
    if (route.method == method && HasPath(route, path)) return &route;
  return nullptr;
}

struct Api::Ticket {
  explicit Ticket(std::shared_ptr<Counts> of_all) : counts(std::move(of_all)) {
    ++counts->num_requests;
  }
  ~Ticket() {
    counts->num_tokens -= num_tokens;
    --counts->num_requests;
  }
  Ticket(const Ticket&) = delete;
  Ticket& operator=(const Ticket&) = delete;

  // Shared: what a server did not get to before it ended is destroyed after the Api.
  std::shared_ptr<Counts> counts;
  const Clock::time_point arrival = Clock::now();
  int64_t num_tokens = 0;
};

// Its answer, and the jobs of its choices. On the HTTP server's thread.
struct Api::Open {
  Answer answer;
  std::shared_ptr<Ticket> ticket;  // until the answer has ended
  std::vector<runtime::JobId> jobs = {};
  bool is_cancelled = false;

  void Cancel(runtime::JobRunner& runner) {
    if (std::exchange(is_cancelled, true)) return;
    for (const runtime::JobId id : jobs) runner.Cancel(id);
  }
};

Api::Api(const ServedModel& model, runtime::JobRunner& runner, ApiOptions options)
    : model_(model),
      runner_(runner),
      options_(std::move(options)),
      metrics_(model.name),
      created_(Now()),
      random_(RandomNumber()),
      readers_("read", options_.num_threads, static_cast<size_t>(options_.max_open_requests)) {}

Api::~Api() = default;

HttpHandlers Api::Handlers() {
  return {.check = [this](const HttpRequest& request) { return Check(request); },
          .handle = [this](const HttpExchange& exchange) { Handle(exchange); },
          .refuse =
              [](int status, const std::string& message) {
                return RefusalResponse({.status = status, .message = message, .code = "bad_http"});
              },
          .note =
              [this](const HttpRequest& request, int status) {
                const Route* route = FindRoute(request.method, request.path);
                metrics_.CountHttp(std::string(route ? route->path : "other"),
                                   std::string(route ? route->method : "other"), status);
              }};
}

std::optional<HttpResponse> Api::Check(const HttpRequest& request) {
  if (auto refusal = CheckRoute(options_.keys, request)) return refusal;
  if (!is_draining_ || FindRoute(request.method, request.path)->operation == 0) return std::nullopt;
  metrics_.CountRejected("draining");
  return RefusalResponse(ShuttingDown());
}

std::optional<HttpResponse> Api::CheckRoute(const ApiKeys& keys, const HttpRequest& request) {
  const Route* route = FindRoute(request.method, request.path);
  const bool is_open = keys.empty() || (route != nullptr && route->is_public);
  if (!is_open && !keys.Find(request.authorization)) return RefusalResponse(NoKey());
  if (route != nullptr) return std::nullopt;
  std::string allowed;
  for (const Route& other : Routes())
    if (HasPath(other, request.path)) allowed = other.method;
  if (allowed.empty())
    return RefusalResponse(
        {.status = 404, .message = "there is no such route", .code = "unknown_route"});
  HttpResponse response = RefusalResponse({.status = 405,
                                           .message = "this route answers " + allowed + " only",
                                           .code = "method_not_allowed"});
  response.headers.emplace_back("Allow", allowed);
  return response;
}

void Api::Handle(const HttpExchange& exchange) {
  const Route& route = *FindRoute(exchange.request().method, exchange.request().path);
  if (route.get != nullptr) return exchange.Respond((this->*route.get)(exchange.request()));
  if (route.operation == 0) return HealthGenerate(exchange);
  const auto ticket = std::make_shared<Ticket>(counts_);
  if (num_open() > options_.max_open_requests) {
    metrics_.CountRejected("requests");
    return exchange.Respond(RefusalResponse(
        Busy(fmt::format("{} requests are under way", options_.max_open_requests))));
  }
  const auto operation = static_cast<Operation>(route.operation);
  const bool is_queued =
      readers_.TryPut([this, exchange, operation, ticket] { Read(exchange, operation, ticket); });
  if (!is_queued)
    exchange.Respond(RefusalResponse(Busy("too many requests are waiting to be read")));
}

// The one place that catches what reading a request throws.
void Api::Read(const HttpExchange& exchange, Operation operation,
               const std::shared_ptr<Ticket>& ticket) {
  std::optional<Refusal> refusal;
  try {
    refusal = Carry(exchange, operation, ticket);
  } catch (const Error& error) {
    refusal = Refusal{.message = WithoutFolder(error.what()), .code = "invalid_value"};
  } catch (const std::exception& failure) {
    LogWarn("{}: {}", exchange.request().path, failure.what());
    refusal = Refusal{.status = 500, .message = "the request could not be read"};
  }
  if (refusal) exchange.Respond(RefusalResponse(*refusal));
}

// Where the model's files lie is no matter of clients.
std::string Api::WithoutFolder(std::string text) const {
  const std::string folder = model_.root + "/";
  for (size_t at = 0; (at = text.find(folder, at)) != std::string::npos;)
    text.erase(at, folder.size());
  return text;
}

// Answers, or returns why not.
std::optional<Refusal> Api::Carry(const HttpExchange& exchange, Operation operation,
                                  const std::shared_ptr<Ticket>& ticket) {
  ApiRequest request;
  if (auto refusal = ParseApiRequest(operation, exchange.request().body, request)) return refusal;
  if (auto refusal = CheckModel(request.model)) return refusal;
  if (options_.salts_by_key) {
    const std::optional<size_t> key = options_.keys.Find(exchange.request().authorization);
    request.cache_salt = fmt::format("{}:{}", key ? std::to_string(*key) : "", request.cache_salt);
  }
  if (operation == kCompletion || IsChat(operation))
    return Generate(exchange, operation, std::move(request), ticket);
  exchange.Respond(operation == kTokenize     ? Tokenize(request)
                   : operation == kDetokenize ? Detokenize(request)
                                              : ApplyTemplate(request));
  return std::nullopt;
}

std::optional<Refusal> Api::CheckModel(const std::string& name) const {
  if (name.empty() || name == model_.name) return std::nullopt;
  return Refusal{.status = 404,
                 .message = fmt::format("the model {} is not served here; {} is",
                                        DumpJson(BeginOf(name, 128)), model_.name),
                 .param = "model",
                 .code = "model_not_found"};
}

HttpResponse Api::Tokenize(const ApiRequest& request) const {
  RenderedChat chat;
  const auto refusal = request.has_messages
                           ? RenderChat(model_, request, chat)
                           : EncodePrompt(model_, request, request.prompts.front(), chat.ids);
  if (refusal) return RefusalResponse(*refusal);
  Json json = {{"count", chat.ids.size()},
               {"max_model_len", model_.max_len()},
               {"tokens", chat.ids},
               {"token_strs", nullptr}};
  if (request.return_token_strings) {
    json["token_strs"] = Json::array();
    for (const int32_t id : chat.ids)
      json["token_strs"].push_back(std::string(model_.tokenizer->TokenText(id)));
  }
  return JsonResponse(json);
}

HttpResponse Api::Detokenize(const ApiRequest& request) const {
  return JsonResponse({{"prompt", model_.tokenizer->Decode(request.ids)}});
}

HttpResponse Api::ApplyTemplate(const ApiRequest& request) const {
  RenderedChat chat;
  if (const auto refusal = RenderChat(model_, request, chat)) return RefusalResponse(*refusal);
  return JsonResponse({{"prompt", chat.text}});
}

std::optional<Refusal> Api::Generate(const HttpExchange& exchange, Operation operation,
                                     ApiRequest request, const std::shared_ptr<Ticket>& ticket) {
  const uint64_t number = num_requests_.fetch_add(1);
  const uint64_t seed = random_ + number * 0x9e3779b97f4a7c15U;
  Jobs made;
  if (auto refusal = MakeJobs(model_, operation, request, seed, made)) return refusal;
  std::vector<runtime::Job> jobs = std::move(made.jobs);
  Answer::Start start{.operation = operation,
                      .request = std::move(request),
                      .id = fmt::format("{}{:016x}", IdPrefix(operation), seed),
                      .created = Now(),
                      .arrival = ticket->arrival,
                      .prompts = {},
                      .form = std::move(made.form)};
  int64_t num_tokens = 0;
  for (runtime::Job& job : jobs) {
    start.prompts.push_back(job.request.prompt);
    num_tokens += static_cast<int64_t>(job.request.prompt.size()) + job.request.max_tokens;
    if (options_.request_timeout.count() > 0)
      job.deadline = ticket->arrival + options_.request_timeout;
  }
  // One request alone may always come.
  const int64_t before = counts_->num_tokens.fetch_add(num_tokens);
  if (before > 0 && before + num_tokens > options_.max_open_tokens) {
    counts_->num_tokens -= num_tokens;
    metrics_.CountRejected("tokens");
    return Busy(fmt::format("requests of {} tokens are under way", before));
  }
  ticket->num_tokens = num_tokens;
  const auto open = std::make_shared<Open>(
      Open{.answer = Answer(model_, metrics_, exchange, std::move(start)), .ticket = ticket});
  exchange.Post([this, open, exchange, jobs = std::move(jobs)]() mutable {
    for (size_t i = 0; i < jobs.size(); ++i) {
      jobs[i].sink = SinkOf(open, exchange, i);
      open->jobs.push_back(runner_.Submit(std::move(jobs[i])));
    }
    exchange.OnGone([this, request = std::weak_ptr(open)] {
      if (const auto found = request.lock()) found->Cancel(runner_);
    });
  });
  return std::nullopt;
}

// The engine does not wait for a client: what came of it goes to the HTTP server's thread.
runtime::DeltaSink Api::SinkOf(const std::shared_ptr<Open>& open, const HttpExchange& exchange,
                               size_t choice) {
  return [this, open, exchange, choice](runtime::Delta delta) {
    if (options_.is_behind_front && delta.error == runtime::kEngineStopped) return exchange.Abort();
    exchange.Post([this, open, choice, delta = std::move(delta)]() mutable {
      open->answer.Take(choice, std::move(delta));
      if (open->answer.has_failed()) open->Cancel(runner_);
      if (open->answer.has_ended()) open->ticket.reset();
    });
  };
}

HttpResponse Api::Health(const HttpRequest&) { return {.body = "{}"}; }

void Api::HealthGenerate(const HttpExchange& exchange) {
  const auto ticket = std::make_shared<Ticket>(counts_);
  runtime::Job job;
  job.request.prompt = {0};
  // The second one is of the engine that generates, where another one computes prompts.
  job.request.max_tokens = 2;
  job.request.priority = std::numeric_limits<int32_t>::min();  // whatever waits
  job.sink = [exchange, ticket](const runtime::Delta& delta) {
    if (!delta.is_last()) return;
    exchange.Respond(delta.finish == runtime::FinishReason::kLength
                         ? HttpResponse{.body = "{}"}
                         : RefusalResponse({.status = 503,
                                            .message = "the engine has not generated two tokens",
                                            .code = "engine_failed"}));
  };
  const runtime::JobId id = runner_.Submit(std::move(job));
  exchange.OnGone([this, id] { runner_.Cancel(id); });
}

HttpResponse Api::Ready(const HttpRequest&) {
  if (!is_draining_ && !runner_.has_ended()) return {.body = R"({"status":"ready"})"};
  return RefusalResponse(ShuttingDown());
}

HttpResponse Api::Version(const HttpRequest&) {
  return JsonResponse({{"version", options_.version}});
}

HttpResponse Api::Models(const HttpRequest&) {
  return JsonResponse({{"object", "list"}, {"data", Json::array({ModelJson(model_, created_)})}});
}

HttpResponse Api::Model(const HttpRequest& request) {
  const std::string name = DecodedName(std::string_view(request.path).substr(kModelPrefix.size()));
  if (const auto refusal = CheckModel(name)) return RefusalResponse(*refusal);
  return JsonResponse(ModelJson(model_, created_));
}

HttpResponse Api::TokenizerInfo(const HttpRequest&) { return {.body = TokenizerInfoJson(model_)}; }

HttpResponse Api::ServerInfo(const HttpRequest&) {
  return {
      .body = ServerInfoJson(
          model_, options_.version,
          {.max_open_requests = options_.max_open_requests,
           .max_open_tokens = options_.max_open_tokens,
           .request_timeout_s = std::chrono::duration<double>(options_.request_timeout).count()})};
}

HttpResponse Api::MetricsText(const HttpRequest&) {
  const bool is_apart = runner_.context() != nullptr;
  std::vector<GenerationState> servers;
  std::vector<EngineState> engines;
  std::vector<runtime::EngineFigures> all;
  for (size_t i = 0; i < runner_.num_engines(); ++i) {
    all.push_back(runner_.figures(i));
    servers.push_back({.figures = all.back(), .is_running = runner_.is_running(i)});
    if (runner_.monitor(i) == nullptr) continue;
    engines.push_back({.course = runner_.monitor(i)->course(),
                       .kv_usage = all.back().kv_usage,
                       .labels = is_apart ? fmt::format(",generation=\"{}\"", i) : ""});
  }
  const runtime::EngineFigures sum = runtime::SumOf(all);
  std::string text = metrics_.Text(sum, num_open(), num_connections_ ? num_connections_() : 0) +
                     EngineMetricsText(engines, model_, metrics_.label());
  if (is_apart)
    text += ContextMetricsText(sum.hand_over, runner_.num_retries(), runner_.context()->figures(),
                               metrics_.label()) +
            GenerationMetricsText(servers, metrics_.label());
  return {.content_type = kMetricsType, .body = std::move(text)};
}

HttpResponse Api::ChatPage(const HttpRequest&) { return WebPage(ChatPageText()); }

HttpResponse Api::DashboardPage(const HttpRequest&) { return WebPage(DashboardPageText()); }

// That of the engine which the query names, "generation=1"; without a query the first one's. Null:
// there is none.
const runtime::EngineMonitor* Api::MonitorOf(const HttpRequest& request, size_t& engine) const {
  engine = 0;
  const std::string_view query = request.query;
  constexpr std::string_view kName = "generation=";
  if (query.starts_with(kName)) {
    const std::string_view number = query.substr(kName.size());
    const auto [end, failure] =
        std::from_chars(number.data(), number.data() + number.size(), engine);
    if (failure != std::errc() || end != number.data() + number.size()) return nullptr;
  } else if (!query.empty()) {
    return nullptr;
  }
  return engine < runner_.num_engines() ? runner_.monitor(engine) : nullptr;
}

HttpResponse Api::DashboardData(const HttpRequest& request) {
  size_t engine = 0;
  if (MonitorOf(request, engine) == nullptr) return NoSuchEngine(runner_.num_engines());
  return {.body = DashboardDataJson({.model = model_,
                                     .runner = runner_,
                                     .engine = engine,
                                     .version = options_.version,
                                     .num_open = num_open(),
                                     .is_draining = is_draining_})};
}

HttpResponse Api::DashboardExperts(const HttpRequest& request) {
  size_t engine = 0;
  const runtime::EngineMonitor* const monitor = MonitorOf(request, engine);
  if (monitor == nullptr) return NoSuchEngine(runner_.num_engines());
  return {.body = DashboardExpertsJson(*monitor)};
}

HttpResponse Api::OpenApi(const HttpRequest&) {
  return {.body = DumpJson(OpenApiDocument(options_.version))};
}

}  // namespace wideload::serve
