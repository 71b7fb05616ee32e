#include "loadclient/load_report.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <ranges>

namespace wideload::loadclient {
namespace {

struct MetricName {
  const char* key;
  const char* title;
  const char* label;
};
constexpr MetricName kMetrics[] = {
    {"ttft", "Time to First Token", "TTFT"},
    {"tpot", "Time per Output Token (excl. 1st token)", "TPOT"},
    {"itl", "Inter-token Latency", "ITL"},
    {"e2el", "End-to-end Latency", "E2EL"},
};
constexpr size_t kFrame = 50, kLabel = 40;

// Where texts bring several tokens each, all bring equally many.
int64_t PeakTokens(const std::vector<Outcome>& outcomes) {
  std::map<int64_t, double> per_second;
  for (const Outcome& outcome : outcomes) {
    if (!outcome.error.empty()) continue;
    const double tokens =
        static_cast<double>(outcome.output_tokens) / static_cast<double>(outcome.gaps_s.size() + 1);
    double time = outcome.first_text_s;
    per_second[static_cast<int64_t>(time)] += tokens;
    for (const double gap : outcome.gaps_s) {
      time += gap;
      per_second[static_cast<int64_t>(time)] += tokens;
    }
  }
  double most = 0;
  for (const auto& [second, tokens] : per_second) most = std::max(most, tokens);
  return std::llround(most);
}

int64_t PeakRequests(const std::vector<Outcome>& outcomes) {
  std::vector<std::pair<double, int>> changes;
  for (const Outcome& outcome : outcomes) {
    changes.emplace_back(outcome.start_s, 1);
    changes.emplace_back(std::max(outcome.end_s, outcome.start_s), -1);
  }
  std::ranges::sort(changes);
  int64_t now = 0, most = 0;
  for (const auto& [time, change] : changes) most = std::max(most, now += change);
  return most;
}

std::string Centred(const std::string& title, char fill) {
  const std::string text = title.empty() ? "" : title;
  const size_t left = (kFrame - std::min(kFrame, text.size())) / 2;
  std::string line = std::string(left, fill) + text;
  line.resize(std::max(kFrame, line.size()), fill);
  return line + "\n";
}

std::string Line(const std::string& label, const std::string& value) {
  return fmt::format("{:<{}} {:<10}\n", label, kLabel, value);
}
std::string Line(const std::string& label, int64_t value) {
  return Line(label, std::to_string(value));
}
std::string Line(const std::string& label, double value) {
  return Line(label, fmt::format("{:.2f}", value));
}

}  // namespace

double Outcome::time_per_output_token_s() const {
  return output_tokens > 1 ? (end_s - first_text_s) / static_cast<double>(output_tokens - 1) : 0;
}

bool Goodput::IsGood(const Outcome& outcome) const {
  const auto holds = [](const std::optional<double>& limit_ms, double seconds) {
    return !limit_ms || seconds * 1e3 <= *limit_ms;
  };
  return holds(ttft_ms, outcome.time_to_first_token_s()) &&
         holds(tpot_ms, outcome.time_per_output_token_s()) && holds(e2el_ms, outcome.latency_s());
}

Distribution DistributionOf(std::vector<double> values, const std::vector<double>& percents) {
  Distribution result{.percentiles = std::vector<double>(percents.size(), 0)};
  if (values.empty()) return result;
  std::ranges::sort(values);
  const auto n = static_cast<double>(values.size());
  const auto at = [&](double percent) {
    const double place = percent / 100 * (n - 1);
    const auto below = static_cast<size_t>(place);
    const size_t above = std::min(below + 1, values.size() - 1);
    return values[below] + (values[above] - values[below]) * (place - std::floor(place));
  };
  result.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  result.median = at(50);
  double squares = 0;
  for (const double value : values) squares += (value - result.mean) * (value - result.mean);
  result.std = std::sqrt(squares / n);
  for (size_t i = 0; i < percents.size(); ++i) result.percentiles[i] = at(percents[i]);
  return result;
}

LoadFigures ComputeLoadFigures(const std::vector<Outcome>& outcomes, double duration_s,
                               const ReportOptions& options) {
  LoadFigures figures{.duration_s = duration_s};
  std::map<std::string, std::vector<double>> samples_ms;
  int64_t num_good = 0;
  for (const Outcome& outcome : outcomes) {
    if (!outcome.error.empty()) {
      ++figures.num_failed;
      ++figures.errors[outcome.error];
      continue;
    }
    ++figures.num_completed;
    figures.input_tokens += outcome.prompt_tokens;
    figures.output_tokens += outcome.output_tokens;
    num_good += options.goodput.IsGood(outcome) ? 1 : 0;
    samples_ms["ttft"].push_back(outcome.time_to_first_token_s() * 1e3);
    samples_ms["e2el"].push_back(outcome.latency_s() * 1e3);
    if (outcome.output_tokens > 1)
      samples_ms["tpot"].push_back(outcome.time_per_output_token_s() * 1e3);
    for (const double gap : outcome.gaps_s) samples_ms["itl"].push_back(gap * 1e3);
  }
  if (options.goodput.is_asked_for()) figures.request_goodput_rps = figures.PerSecond(num_good);
  figures.peak_output_tokens_per_s = PeakTokens(outcomes);
  figures.peak_concurrent_requests = PeakRequests(outcomes);
  for (const MetricName& metric : kMetrics)
    figures.metrics[metric.key] =
        DistributionOf(std::move(samples_ms[metric.key]), options.percents);
  return figures;
}

std::string LoadReportText(const LoadFigures& figures, const ReportOptions& options) {
  std::string text = Centred(" Serving Benchmark Result ", '=');
  text += Line("Successful requests:", figures.num_completed);
  text += Line("Failed requests:", figures.num_failed);
  for (const auto& [error, count] : figures.errors) text += Line("  " + error + ":", count);
  text += Line("Benchmark duration (s):", figures.duration_s);
  text += Line("Total input tokens:", figures.input_tokens);
  text += Line("Total generated tokens:", figures.output_tokens);
  text += Line("Request throughput (req/s):", figures.PerSecond(figures.num_completed));
  if (figures.request_goodput_rps)
    text += Line("Request goodput (req/s):", *figures.request_goodput_rps);
  text += Line("Output token throughput (tok/s):", figures.PerSecond(figures.output_tokens));
  text += Line("Peak output token throughput (tok/s):", figures.peak_output_tokens_per_s);
  text += Line("Peak concurrent requests:", figures.peak_concurrent_requests);
  text += Line("Total token throughput (tok/s):",
               figures.PerSecond(figures.input_tokens + figures.output_tokens));
  for (const MetricName& metric : kMetrics) {
    if (std::ranges::find(options.shown_metrics, metric.key) == options.shown_metrics.end())
      continue;
    const Distribution& values = figures.metrics.at(metric.key);
    text += Centred(metric.title, '-');
    text += Line(fmt::format("Mean {} (ms):", metric.label), values.mean);
    text += Line(fmt::format("Median {} (ms):", metric.label), values.median);
    for (size_t i = 0; i < options.percents.size(); ++i)
      text += Line(fmt::format("P{} {} (ms):", options.percents[i], metric.label),
                   values.percentiles[i]);
  }
  return text + std::string(kFrame, '=');
}

Json LoadReportJson(const LoadFigures& figures, const ReportOptions& options) {
  Json json = {
      {"duration", figures.duration_s},
      {"completed", figures.num_completed},
      {"failed", figures.num_failed},
      {"error_counts", figures.errors},
      {"total_input_tokens", figures.input_tokens},
      {"total_output_tokens", figures.output_tokens},
      {"request_throughput", figures.PerSecond(figures.num_completed)},
      {"request_goodput", nullptr},
      {"output_throughput", figures.PerSecond(figures.output_tokens)},
      {"total_token_throughput", figures.PerSecond(figures.input_tokens + figures.output_tokens)},
      {"max_output_tokens_per_s", figures.peak_output_tokens_per_s},
      {"max_concurrent_requests", figures.peak_concurrent_requests}};
  if (figures.request_goodput_rps) json["request_goodput"] = *figures.request_goodput_rps;
  for (const auto& [name, values] : figures.metrics) {
    json[fmt::format("mean_{}_ms", name)] = values.mean;
    json[fmt::format("median_{}_ms", name)] = values.median;
    json[fmt::format("std_{}_ms", name)] = values.std;
    for (size_t i = 0; i < options.percents.size(); ++i)
      json[fmt::format("p{}_{}_ms", options.percents[i], name)] = values.percentiles[i];
  }
  return json;
}

void AddDetails(const std::vector<Outcome>& outcomes, Json& report) {
  for (const char* name : {"input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times",
                           "errors", "generated_texts"})
    report[name] = Json::array();
  for (const Outcome& outcome : outcomes) {
    const bool is_complete = outcome.error.empty();
    report["input_lens"].push_back(outcome.prompt_tokens);
    report["output_lens"].push_back(outcome.output_tokens);
    report["ttfts"].push_back(is_complete ? outcome.time_to_first_token_s() : 0.0);
    report["itls"].push_back(outcome.gaps_s);
    report["latencies"].push_back(is_complete ? outcome.latency_s() : 0.0);
    report["start_times"].push_back(outcome.start_s);
    report["errors"].push_back(outcome.error);
    report["generated_texts"].push_back(outcome.text);
  }
}

}  // namespace wideload::loadclient
