#include "runtime/bench_report.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace wideload::runtime {

Percentiles PercentilesOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto n = static_cast<double>(values.size());
  const auto at = [&](double share) {
    const double rank = std::ceil(share * n);
    return values[static_cast<size_t>(std::max(rank, 1.0)) - 1];
  };
  return {.p50 = at(0.50),
          .p90 = at(0.90),
          .p95 = at(0.95),
          .p99 = at(0.99),
          .minimum = values.front(),
          .maximum = values.back(),
          .average = std::accumulate(values.begin(), values.end(), 0.0) / n};
}

BenchFigures ComputeFigures(std::span<const RequestTiming> requests, double duration_s) {
  BenchFigures figures;
  if (requests.empty() || duration_s <= 0) return figures;
  std::vector<double> latency, first_token, per_token, speed, inputs, outputs;
  double prompt_tokens = 0, output_tokens = 0, latency_sum = 0, per_user = 0;
  for (const RequestTiming& r : requests) {
    const double seconds = r.end_s - r.start_s;
    prompt_tokens += static_cast<double>(r.prompt_tokens);
    output_tokens += static_cast<double>(r.output_tokens);
    inputs.push_back(static_cast<double>(r.prompt_tokens));
    outputs.push_back(static_cast<double>(r.output_tokens));
    latency_sum += seconds;
    latency.push_back(seconds * 1e3);
    if (seconds > 0) per_user += static_cast<double>(r.output_tokens) / seconds;
    if (r.output_tokens >= 1) first_token.push_back((r.first_token_s - r.start_s) * 1e3);
    if (r.output_tokens >= 2)
      per_token.push_back((r.end_s - r.first_token_s) * 1e3 /
                          static_cast<double>(r.output_tokens - 1));
    if (r.output_tokens >= 2 && r.end_s > r.first_token_s)
      speed.push_back(static_cast<double>(r.output_tokens - 1) / (r.end_s - r.first_token_s));
  }
  const auto n = static_cast<double>(requests.size());
  figures.total_latency_ms = duration_s * 1e3;
  figures.request_throughput_req_s = n / duration_s;
  figures.output_throughput_tok_s = output_tokens / duration_s;
  figures.total_throughput_tok_s = (prompt_tokens + output_tokens) / duration_s;
  figures.output_throughput_per_user_tok_s = per_user / n;
  figures.average_input_length = prompt_tokens / n;
  figures.average_output_length = output_tokens / n;
  figures.average_concurrent_requests = latency_sum / duration_s;
  figures.latency_ms = PercentilesOf(std::move(latency));
  figures.time_to_first_token_ms = PercentilesOf(std::move(first_token));
  figures.time_per_output_token_ms = PercentilesOf(std::move(per_token));
  figures.token_speed_tok_s = PercentilesOf(std::move(speed));
  figures.input_length = PercentilesOf(std::move(inputs));
  figures.output_length = PercentilesOf(std::move(outputs));
  return figures;
}

}  // namespace wideload::runtime
