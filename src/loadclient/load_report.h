// What a load test came to: figures and report in the words and JSON keys of `vllm bench serve`.
// Pure.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace wideload::loadclient {

// One request. Times in seconds since the run's start.
struct Outcome {
  double start_s = 0, first_text_s = 0, end_s = 0;  // its last text came at end_s
  std::vector<double> gaps_s{};                     // between its texts, one less than these
  int64_t prompt_tokens = 0, output_tokens = 0;     // as the server counts them, if it does
  std::string text{};
  std::string error{};  // what it failed with; "": it is complete

  double time_to_first_token_s() const { return first_text_s - start_s; }
  double latency_s() const { return end_s - start_s; }
  // Of those after the first; 0 where there is no second.
  double time_per_output_token_s() const;
};

// Milliseconds that a good request takes at most: for its first token, for each of the others, and
// as a whole.
struct Goodput {
  std::optional<double> ttft_ms{}, tpot_ms{}, e2el_ms{};
  bool is_asked_for() const { return ttft_ms || tpot_ms || e2el_ms; }
  bool IsGood(const Outcome& outcome) const;
};

// Of a sample; zeros when it is empty.
struct Distribution {
  double mean = 0, median = 0, std = 0;  // std: of all of them, not estimated
  std::vector<double> percentiles{};     // of those asked for; between values, linear
};
// `percents` are 0 to 100.
Distribution DistributionOf(std::vector<double> values, const std::vector<double>& percents);

// Which metrics the report has percentiles of.
struct ReportOptions {
  Goodput goodput{};
  std::vector<double> percents{99};
  // Shown as text: ttft, tpot, itl, e2el. JSON has all.
  std::vector<std::string> shown_metrics{"ttft", "tpot", "itl"};
};

// Failed requests count in num_failed and errors alone.
struct LoadFigures {
  double duration_s = 0;
  int64_t num_completed = 0, num_failed = 0;
  int64_t input_tokens = 0, output_tokens = 0;
  std::optional<double> request_goodput_rps{};
  int64_t peak_output_tokens_per_s = 0;  // in the best whole second since the start
  int64_t peak_concurrent_requests = 0;
  std::map<std::string, Distribution> metrics{};  // ms: ttft, tpot, itl, e2el
  std::map<std::string, int64_t> errors{};        // failed requests by what they failed with

  double PerSecond(int64_t count) const {
    return duration_s > 0 ? static_cast<double>(count) / duration_s : 0;
  }
};
// Of a run that took duration_s seconds.
LoadFigures ComputeLoadFigures(const std::vector<Outcome>& outcomes, double duration_s,
                               const ReportOptions& options);

// Lines for people, in vLLM's frame.
std::string LoadReportText(const LoadFigures& figures, const ReportOptions& options);
// The figures under vLLM's keys, with error_counts.
Json LoadReportJson(const LoadFigures& figures, const ReportOptions& options);
// Adds what came of each request: vLLM's arrays input_lens, output_lens, ttfts, itls, latencies,
// start_times, errors, generated_texts.
void AddDetails(const std::vector<Outcome>& outcomes, Json& report);

}  // namespace wideload::loadclient
