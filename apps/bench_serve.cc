// `wideload bench serve`: puts a server of OpenAI's API under load and reports in the words of
// `vllm bench serve`.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "bench_commands.h"
#include "bench_serve_requests.h"
#include "file_flags.h"
#include "interrupt.h"
#include "loadclient/arrivals.h"
#include "loadclient/load_run.h"
#include "tokenizer/tokenizer.h"

namespace wideload::apps {
namespace {

using loadclient::HttpClient;

struct BenchServeCommand {
  std::string backend = "openai", base_url, host = "localhost", endpoint, model;
  int32_t port = 8000;
  ServeDataset dataset;
  RequestForm form;
  loadclient::ArrivalOptions arrivals;
  std::string ramp_up_strategy;
  std::optional<int64_t> ramp_up_start_rps, ramp_up_end_rps;
  int64_t max_concurrency = 0, num_warmups = 0;
  double ready_check_timeout_s = 0;
  std::vector<std::string> goodput, percentile_metrics, metadata;
  std::string metric_percentiles = "99";
  bool save_result = false, save_detailed = false, prints_json = false;
  std::string result_dir, result_filename;

  void Run();

 private:
  void Check();
  void CheckRates();
  void CheckGoodput();
  void CheckPercentiles();
  void AskModel(HttpClient& client);
  void Warmup(HttpClient& client, const std::vector<loadclient::LoadRequest>& requests) const;
  loadclient::LoadResult Measure(HttpClient& client,
                                 const std::vector<loadclient::LoadRequest>& requests) const;
  std::string ResultPath() const;
  Json Configuration() const;
  std::vector<std::pair<std::string, std::string>> Headers() const;

  loadclient::ReportOptions report_;
};

constexpr const char* kMetricNames[] = {"ttft", "tpot", "itl", "e2el"};

void CheckOneOf(const char* flag, const std::string& value,
                std::initializer_list<std::string_view> allowed) {
  if (std::ranges::find(allowed, value) == allowed.end())
    Throw(ErrorKind::kInvalid, "{} is \"{}\"; allowed: {}", flag, value, fmt::join(allowed, ", "));
}

// What is split at commas and spaces.
std::vector<std::string> Words(const std::string& text) {
  std::vector<std::string> words;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find_first_of(", ", at), text.size());
    if (end > at) words.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

void BenchServeCommand::CheckRates() {
  if (ramp_up_strategy.empty()) {
    if (ramp_up_start_rps || ramp_up_end_rps)
      Throw(ErrorKind::kInvalid,
            "--ramp-up-start-rps and --ramp-up-end-rps need --ramp-up-strategy linear|exponential");
    return;
  }
  CheckOneOf("--ramp-up-strategy", ramp_up_strategy, {"linear", "exponential"});
  if (!ramp_up_start_rps || !ramp_up_end_rps)
    Throw(ErrorKind::kInvalid,
          "--ramp-up-strategy needs both --ramp-up-start-rps and --ramp-up-end-rps");
  if (std::isfinite(arrivals.rate_rps))
    Throw(ErrorKind::kInvalid,
          "--request-rate and --ramp-up-strategy both say when requests start; give one");
  arrivals.ramp =
      ramp_up_strategy == "linear" ? loadclient::Ramp::kLinear : loadclient::Ramp::kExponential;
  arrivals.start_rps = static_cast<double>(*ramp_up_start_rps);
  arrivals.end_rps = static_cast<double>(*ramp_up_end_rps);
}

void BenchServeCommand::CheckGoodput() {
  for (const std::string& given : goodput)
    for (const std::string& pair : Words(given)) {
      const size_t colon = pair.find(':');
      const std::string name = pair.substr(0, colon);
      auto& limits = report_.goodput;
      std::optional<double>* limit = name == "ttft"   ? &limits.ttft_ms
                                     : name == "tpot" ? &limits.tpot_ms
                                     : name == "e2el" ? &limits.e2el_ms
                                                      : nullptr;
      if (limit == nullptr || colon == std::string::npos)
        Throw(ErrorKind::kInvalid,
              "--goodput has \"{}\"; allowed: ttft:MS, tpot:MS and e2el:MS, each at most once",
              pair);
      *limit = config::ParseNumber<double>("--goodput " + name, pair.substr(colon + 1),
                                           {.min = 0, .min_excluded = true});
    }
}

void BenchServeCommand::CheckPercentiles() {
  report_.percents.clear();
  for (const std::string& word : Words(metric_percentiles))
    report_.percents.push_back(
        config::ParseNumber<double>("--metric-percentiles", word, {.min = 0, .max = 100}));
  if (percentile_metrics.empty()) return;
  report_.shown_metrics.clear();
  for (const std::string& given : percentile_metrics)
    for (const std::string& name : Words(given)) {
      if (std::ranges::find(kMetricNames, name) == std::end(kMetricNames))
        Throw(ErrorKind::kInvalid, "--percentile-metrics has \"{}\"; allowed: {}", name,
              fmt::join(kMetricNames, ", "));
      report_.shown_metrics.push_back(name);
    }
}

void BenchServeCommand::Check() {
  CheckOneOf("--backend", backend, {"openai", "vllm", "openai-chat"});
  CheckOneOf("--dataset-name", dataset.name, {"random", "custom", "embedded"});
  if ((dataset.name == "custom") == dataset.path.empty())
    Throw(ErrorKind::kInvalid, "--dataset-path and --dataset-name custom need each other");
  form.is_chat = backend == "openai-chat";
  if (endpoint.empty()) endpoint = form.is_chat ? "/v1/chat/completions" : "/v1/completions";
  if (!endpoint.starts_with('/'))
    Throw(ErrorKind::kInvalid, "--endpoint is {}; it must begin with /", endpoint);
  for (const std::string& pair : metadata)
    if (pair.find('=') == std::string::npos)
      Throw(ErrorKind::kInvalid, "--metadata has {}; allowed: KEY=VALUE", pair);
  if (!save_result && (save_detailed || !result_dir.empty() || !result_filename.empty()))
    Throw(ErrorKind::kInvalid,
          "--save-detailed, --result-dir and --result-filename need --save-result");
  CheckRates();
  CheckGoodput();
  CheckPercentiles();
  if (!dataset.path.empty()) CheckFiles({Reads("--dataset-path", dataset.path)});
}

std::vector<std::pair<std::string, std::string>> BenchServeCommand::Headers() const {
  std::vector<std::pair<std::string, std::string>> headers = {{"Content-Type", "application/json"},
                                                              {"Accept", "text/event-stream"}};
  if (const char* key = std::getenv("OPENAI_API_KEY"); key != nullptr && *key != '\0')
    headers.emplace_back("Authorization", std::string("Bearer ") + key);
  return headers;
}

// Asks the server what it serves, again and again for as long as it may take to be ready. Sets the
// model, and the tokenizer where that is on this machine, unless they are given.
void BenchServeCommand::AskModel(HttpClient& client) {
  const auto no_later =
      HttpClient::Clock::now() + std::chrono::duration_cast<HttpClient::Clock::duration>(
                                     std::chrono::duration<double>(ready_check_timeout_s));
  std::string body, error;
  int status = 0;
  const std::function<void()> ask = [&] {
    body.clear();
    status = 0;
    client.Send({.method = "GET", .path = "/v1/models", .headers = Headers()},
                {.head = [&](int found) { status = found; },
                 .body = [&](std::string_view bytes) { body += bytes; },
                 .end =
                     [&](const std::string& failure) {
                       error = failure.empty() && status != 200 ? fmt::format("status {}", status)
                                                                : failure;
                       const auto again = HttpClient::Clock::now() + std::chrono::seconds(1);
                       if (!error.empty() && again < no_later) client.At(again, ask);
                     }});
  };
  ask();
  if (!client.Run([] { return InterruptSignal() != 0; }))
    Throw(ErrorKind::kRunFailed, "interrupted");
  const std::string place = "the server's /v1/models";
  if (!error.empty()) Throw(ErrorKind::kRunFailed, "{}: {}", place, error);
  const Json json = ParseJson(body, place);
  const Json& list = JsonFields(json, place).Required("data");
  if (!list.is_array() || list.empty()) Throw(ErrorKind::kCorrupt, "{}: data is no list", place);
  const JsonFields first(list.front(), place, "data[0]");
  if (form.model.empty()) form.model = model.empty() ? first.String("id") : model;
  const std::string root = first.StringOr("root", "");
  if (dataset.tokenizer.empty() && !root.empty() && tokenizer::Tokenizer::IsIn(root))
    dataset.tokenizer = root;
}

void BenchServeCommand::Warmup(HttpClient& client,
                               const std::vector<loadclient::LoadRequest>& requests) const {
  if (num_warmups == 0) return;
  std::vector<loadclient::LoadRequest> first;
  for (int64_t i = 0; i < num_warmups; ++i)
    first.push_back(requests[static_cast<size_t>(i) % requests.size()]);
  const loadclient::LoadResult result =
      loadclient::RunLoad(client, first,
                          {.path = endpoint,
                           .headers = Headers(),
                           .arrivals_s = std::vector<double>(first.size(), 0),
                           .max_concurrency = max_concurrency,
                           .is_interrupted = [] { return InterruptSignal() != 0; }});
  if (!result.is_complete) Throw(ErrorKind::kRunFailed, "interrupted");
  for (const loadclient::Outcome& outcome : result.outcomes)
    if (!outcome.error.empty())
      Throw(ErrorKind::kRunFailed, "a request of the warm-up failed: {}", outcome.error);
}

loadclient::LoadResult BenchServeCommand::Measure(
    HttpClient& client, const std::vector<loadclient::LoadRequest>& requests) const {
  constexpr std::chrono::seconds kBetweenLines{5};
  auto last_line = HttpClient::Clock::now();
  const auto progress = [&](int64_t num_ended, int64_t num_running) {
    const auto now = HttpClient::Clock::now();
    if (now - last_line < kBetweenLines) return;
    last_line = now;
    LogInfo("{} of {} requests have ended, {} are under way", num_ended, requests.size(),
            num_running);
  };
  return loadclient::RunLoad(client, requests,
                             {.path = endpoint,
                              .headers = Headers(),
                              .arrivals_s = loadclient::ArrivalTimes(arrivals, requests.size()),
                              .max_concurrency = max_concurrency,
                              .is_interrupted = [] { return InterruptSignal() != 0; },
                              .progress = progress});
}

// The name says what was run, not when.
std::string BenchServeCommand::ResultPath() const {
  std::string name = result_filename;
  if (name.empty()) {
    std::string model_name = form.model;
    std::ranges::replace(model_name, '/', '_');
    name = fmt::format("{}-{}qps{}-{}.json", backend, arrivals.rate_rps,
                       max_concurrency > 0 ? fmt::format("-concurrency{}", max_concurrency) : "",
                       model_name);
  }
  if (result_dir.empty()) return name;
  return (std::filesystem::path(result_dir) / name).string();
}

Json BenchServeCommand::Configuration() const {
  Json json = {{"backend", backend},
               {"model_id", form.model},
               {"tokenizer_id", dataset.tokenizer},
               {"num_prompts", dataset.num_prompts},
               {"request_rate", "inf"},
               {"burstiness", arrivals.burstiness},
               {"max_concurrency", nullptr}};
  if (std::isfinite(arrivals.rate_rps)) json["request_rate"] = arrivals.rate_rps;
  if (max_concurrency > 0) json["max_concurrency"] = max_concurrency;
  if (!ramp_up_strategy.empty()) {
    json["ramp_up_strategy"] = ramp_up_strategy;
    json["ramp_up_start_rps"] = *ramp_up_start_rps;
    json["ramp_up_end_rps"] = *ramp_up_end_rps;
  }
  for (const std::string& pair : metadata)
    json[pair.substr(0, pair.find('='))] = pair.substr(pair.find('=') + 1);
  return json;
}

void BenchServeCommand::Run() {
  Check();
  CatchInterrupts();
  HttpClient client(base_url.empty()
                        ? loadclient::ServerAddress{.host = host, .port = port, .path = ""}
                        : loadclient::ParseUrl(base_url, "--base-url"));
  AskModel(client);
  const std::vector<loadclient::LoadRequest> requests = MakeServeRequests(dataset, form);
  if (save_result) CheckWritable(ResultPath());
  Warmup(client, requests);
  const loadclient::LoadResult result = Measure(client, requests);
  const loadclient::LoadFigures figures =
      loadclient::ComputeLoadFigures(result.outcomes, result.duration_s, report_);
  Json report = LoadReportJson(figures, report_);
  report.update(Configuration());
  std::cout << (prints_json ? DumpJson(report, 2) : LoadReportText(figures, report_)) << "\n";
  if (!result.is_complete) {
    LogWarn("interrupted: {} of {} requests had ended", result.outcomes.size(), requests.size());
    return;
  }
  if (save_detailed) AddDetails(result.outcomes, report);
  if (save_result) WriteFileWhole(ResultPath(), DumpJson(report, 2) + "\n");
  if (figures.num_completed == 0)
    Throw(ErrorKind::kRunFailed, "no request was answered: {}", figures.errors.begin()->first);
}

void AddServerFlags(Command command, BenchServeCommand& bench) {
  command
      .Add("--backend", bench.backend,
           "openai (or vllm): completions; openai-chat: chat completions")
      .ShowDefault();
  command.Add("--base-url", bench.base_url, "http://HOST[:PORT][/PATH], instead of host and port");
  command.Add("--host", bench.host, "the server's").ShowDefault();
  command.Add("--port", bench.port, "the server's").Range(1, 65535).ShowDefault();
  command.Add("--endpoint", bench.endpoint, "path of the route (default: that of the backend)");
  command.Add("-m,--model", bench.model, "name of the model (default: what the server serves)");
  command
      .Add("--ready-check-timeout-sec", bench.ready_check_timeout_s,
           "seconds to wait for the server to be there")
      .Range(0, 1e6)
      .ShowDefault();
}

void AddDatasetFlags(Command command, ServeDataset& dataset) {
  command
      .Add("--dataset-name", dataset.name,
           "random: random token ids; custom: the rows of --dataset-path; embedded: the prompts "
           "that come with the program")
      .ShowDefault();
  command.Add("--dataset-path", dataset.path,
              "JSON lines {task_id, prompt | input_ids, output_tokens}; - is standard input");
  command.Add("--num-prompts", dataset.num_prompts, "requests to send").Positive().ShowDefault();
  command
      .Add("--random-input-len,--input-len", dataset.random_input_len, "tokens of random prompts")
      .Positive()
      .ShowDefault();
  command
      .Add("--random-output-len,--output-len,--custom-output-len", dataset.output_len,
           "tokens to generate (default: 128 of random, else what rows say)")
      .Positive();
  command
      .Add("--random-range-ratio", dataset.random_range_ratio,
           "random lengths are up to this part shorter or longer")
      .Range(0, 1)
      .ShowDefault();
  command
      .Add("--random-prefix-len", dataset.random_prefix_len,
           "tokens that all random prompts begin with, beside their own")
      .NonNegative()
      .ShowDefault();
  command.Add("--tokenizer", dataset.tokenizer,
              "folder or file of the tokenizer, for random ids (default: that of the served model "
              "where it is on this machine)");
  command.Add("--seed", dataset.seed, "of lengths, ids and arrivals").ShowDefault();
}

void AddRateFlags(Command command, BenchServeCommand& bench) {
  const auto parse_rate = [&rate = bench.arrivals.rate_rps](const std::string& name,
                                                            const std::string& text) {
    if (text != "inf")
      rate = config::ParseNumber<double>(name, text, {.min = 0, .min_excluded = true});
  };
  command.AddParsed({.names = "--request-rate",
                     .help = "requests that start in a second, or inf: all at once (default)",
                     .kind = "FLOAT|inf",
                     .parse = parse_rate,
                     .value_text = [] { return "inf"; }});
  command
      .Add("--burstiness", bench.arrivals.burstiness,
           "of --request-rate: 1 is Poisson, less has bursts, more is even")
      .Positive()
      .ShowDefault();
  command
      .Add("--max-concurrency", bench.max_concurrency,
           "requests under way at most; further ones wait (default: no limit)")
      .Positive();
  command.Add("--ramp-up-strategy", bench.ramp_up_strategy,
              "linear or exponential: the rate goes from --ramp-up-start-rps to --ramp-up-end-rps");
  command.Add("--ramp-up-start-rps", bench.ramp_up_start_rps, "rate of the first requests")
      .Positive();
  command.Add("--ramp-up-end-rps", bench.ramp_up_end_rps, "rate of the last requests").Positive();
  command.Add("--num-warmups", bench.num_warmups, "requests to send before, not counted")
      .NonNegative();
}

void AddReportFlags(Command command, BenchServeCommand& bench) {
  command.Add("--goodput", bench.goodput,
              "ttft:MS tpot:MS e2el:MS: count the requests that hold all of these");
  command.Add("--percentile-metrics", bench.percentile_metrics,
              "metrics to show, of ttft, tpot, itl, e2el (default: ttft,tpot,itl)");
  command.Add("--metric-percentiles", bench.metric_percentiles, "percentiles, with commas between")
      .ShowDefault();
  command.Add("--save-result", bench.save_result, "write a file with the report as JSON");
  command.Add("--save-detailed", bench.save_detailed, "with what came of each request in it");
  command.Add("--result-dir", bench.result_dir, "folder of the file");
  command.Add("--result-filename", bench.result_filename,
              "its name (default: of backend, rate and model)");
  command.Add("--metadata", bench.metadata, "KEY=VALUE, put into the file").OneValueEach();
  command.Add("--json", bench.prints_json, "print the report as JSON");
}

}  // namespace

void AddBenchServe(Command group) {
  const Command command = group.Subcommand(
      "serve", "put a server of OpenAI's API under load; options and report of vllm bench serve");
  BenchServeCommand& bench = command.Runs<BenchServeCommand>(&BenchServeCommand::Run);
  AddServerFlags(command, bench);
  AddDatasetFlags(command, bench.dataset);
  command.Add("--ignore-eos", bench.form.ignore_eos, "generate on after the model's end token");
  command.Add("--temperature", bench.form.temperature, "0: greedy").NonNegative().ShowDefault();
  command.Add("--top-p", bench.form.top_p, "part of the probability to sample from").Range(0, 1);
  AddRateFlags(command, bench);
  AddReportFlags(command, bench);
}

}  // namespace wideload::apps
