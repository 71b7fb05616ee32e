#include "serve/metrics.h"

#include <fmt/format.h>

#include <algorithm>

namespace wideload::serve {
namespace {

// vLLM's and TensorRT-LLM's, so that their dashboards fit.
const std::vector<double> kFirstTokenSeconds = {.001, .005, .01, .02, .04, .06, .08, .1,
                                                .25,  .5,   .75, 1,   2.5, 5,   7.5, 10,
                                                20,   40,   80,  160, 640, 2560};
const std::vector<double> kNextTokenSeconds = {.001, .0025, .005, .01, .025, .05, .075, .1, .15,
                                               .2,   .3,    .4,   .5,  .75,  1,   2.5,  5,  10};
const std::vector<double> kLatencySeconds = {.1, .3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,
                                             15, 20, 30, 40, 50, 60,  120, 240, 480, 960};
const std::vector<double> kTokens = {1,   2,    5,    10,   20,    50,    100,   200,
                                     500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

std::string Escaped(const std::string& value) {
  std::string text;
  for (const char c : value) {
    if (c == '\\' || c == '"') text += '\\';
    text += c == '\n' ? ' ' : c;
  }
  return text;
}

void Head(const char* name, const char* type, const char* help, std::string& text) {
  text += fmt::format("# HELP wideload_{} {}\n# TYPE wideload_{} {}\n", name, help, name, type);
}

}  // namespace

void Histogram::Add(double value) {
  const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  ++counts_[static_cast<size_t>(bucket)];
  sum_ += value;
  ++num_values_;
}

void Histogram::Write(const std::string& name, const std::string& labels, std::string& text) const {
  int64_t below = 0;
  for (size_t i = 0; i < bounds_.size(); ++i) {
    below += counts_[i];
    text += fmt::format("wideload_{}_bucket{{{},le=\"{}\"}} {}\n", name, labels, bounds_[i], below);
  }
  text += fmt::format(
      "wideload_{0}_bucket{{{1},le=\"+Inf\"}} {2}\nwideload_{0}_sum{{{1}}} {3}\n"
      "wideload_{0}_count{{{1}}} {2}\n",
      name, labels, num_values_, sum_);
}

Metrics::Metrics(const std::string& model_name)
    : label_(fmt::format("model_name=\"{}\"", Escaped(model_name))),
      first_token_(kFirstTokenSeconds),
      next_token_(kNextTokenSeconds),
      latency_(kLatencySeconds),
      queue_(kLatencySeconds),
      prefill_(kLatencySeconds),
      decode_(kLatencySeconds),
      inference_(kLatencySeconds),
      per_token_(kNextTokenSeconds),
      prompt_tokens_(kTokens),
      generated_tokens_(kTokens) {}

void Metrics::CountHttp(const std::string& handler, const std::string& method, int status) {
  const std::lock_guard lock(mutex_);
  ++http_[fmt::format("handler=\"{}\",method=\"{}\",status=\"{}\"", handler, method, status)];
}

void Metrics::CountRejected(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  ++rejected_[reason];
}

void Metrics::NoteFirstToken(double seconds) {
  const std::lock_guard lock(mutex_);
  first_token_.Add(seconds);
}

void Metrics::NoteNextToken(double seconds) {
  const std::lock_guard lock(mutex_);
  next_token_.Add(seconds);
}

void Metrics::NoteChoice(const ChoiceFigures& figures) {
  const std::lock_guard lock(mutex_);
  latency_.Add(figures.latency_s);
  decode_.Add(figures.decode_s);
  if (figures.queue_s) queue_.Add(*figures.queue_s);
  if (figures.prefill_s) {
    prefill_.Add(*figures.prefill_s);
    inference_.Add(*figures.prefill_s + figures.decode_s);
  }
  if (figures.generated_tokens > 1)
    per_token_.Add(figures.decode_s / static_cast<double>(figures.generated_tokens - 1));
  prompt_tokens_.Add(static_cast<double>(figures.prompt_tokens));
  generated_tokens_.Add(static_cast<double>(figures.generated_tokens));
  num_prompt_tokens_ += figures.prompt_tokens;
  num_generated_tokens_ += figures.generated_tokens;
  ++finished_[figures.finish_reason];
}

std::string Metrics::Text(const runtime::EngineFigures& engine, int64_t open_requests,
                          int64_t connections) const {
  const std::lock_guard lock(mutex_);
  std::string text;
  const auto number = [&](const char* name, const char* type, const char* help, auto value) {
    Head(name, type, help, text);
    text += fmt::format("wideload_{}{{{}}} {}\n", name, label_, value);
  };
  const auto by = [&](const char* name, const char* help, const char* key,
                      const std::map<std::string, int64_t>& values) {
    Head(name, "counter", help, text);
    for (const auto& [value, count] : values)
      text += fmt::format("wideload_{}{{{},{}=\"{}\"}} {}\n", name, label_, key, value, count);
  };
  const auto histogram = [&](const char* name, const char* help, const Histogram& values) {
    Head(name, "histogram", help, text);
    values.Write(name, label_, text);
  };
  number("num_requests_running", "gauge", "Sequences with a place on a rank.", engine.num_running);
  number("num_requests_waiting", "gauge", "Sequences that wait for a place.", engine.num_waiting);
  number("num_requests_open", "gauge", "Requests that have come and are not answered.",
         open_requests);
  number("http_connections", "gauge", "Open connections.", connections);
  number("kv_cache_usage_perc", "gauge", "Share of the blocks of the KV cache in use, 0 to 1.",
         engine.kv_usage);
  number("prefix_cache_queries_total", "counter",
         "Tokens of prompts looked for in the prefix cache.", engine.prefixes.num_queries);
  number("prefix_cache_hits_total", "counter", "Tokens of prompts found there and not computed.",
         engine.prefixes.num_hits);
  number("kv_cache_hit_rate", "gauge", "Share of the tokens looked for that were found, 0 to 1.",
         engine.prefixes.hit_rate());
  number("num_preemptions_total", "counter", "Sequences that gave their blocks back.",
         engine.num_preemptions);
  number("iterations_total", "counter", "Iterations of the engine.", engine.num_iterations);
  number("prompt_tokens_total", "counter", "Tokens of prompts of sequences that ended.",
         num_prompt_tokens_);
  number("generation_tokens_total", "counter", "Tokens generated by sequences that ended.",
         num_generated_tokens_);
  number("eplb_imbalance_ratio", "gauge",
         "Mean of max / mean - 1 of the rows that ranks computed, over layers and iterations.",
         engine.mean_imbalance);
  int64_t num_completed = 0;
  for (const auto& [reason, count] : finished_) num_completed += count;
  number("num_requests_completed_total", "counter", "Sequences that ended, for any reason.",
         num_completed);
  const auto failed = finished_.find("error");
  number("request_error_total", "counter", "Of these, those that an error ended.",
         failed == finished_.end() ? 0 : failed->second);
  by("request_success_total", "Sequences that ended, by reason.", "finished_reason", finished_);
  by("request_rejected_total", "Requests that were not taken, by reason.", "reason", rejected_);
  Head("http_requests_total", "counter", "Requests by path, method and status.", text);
  for (const auto& [labels, count] : http_)
    text += fmt::format("wideload_http_requests_total{{{}}} {}\n", labels, count);
  histogram("time_to_first_token_seconds", "From a request's arrival to its first token.",
            first_token_);
  histogram("inter_token_latency_seconds", "Between two tokens of a sequence.", next_token_);
  histogram("e2e_request_latency_seconds", "From a request's arrival to its end.", latency_);
  histogram("request_queue_time_seconds",
            "From a request's arrival to a sequence's first iteration.", queue_);
  histogram("request_prefill_time_seconds", "From there to the sequence's first token.", prefill_);
  histogram("request_decode_time_seconds", "From a sequence's first token to its last.", decode_);
  histogram("request_inference_time_seconds", "From its first iteration to its last token.",
            inference_);
  histogram("time_per_output_token_seconds",
            "That time by the tokens after the first, of each sequence.", per_token_);
  histogram("request_prompt_tokens", "Tokens of a prompt.", prompt_tokens_);
  histogram("request_generation_tokens", "Tokens generated by a sequence.", generated_tokens_);
  return text;
}

}  // namespace wideload::serve
