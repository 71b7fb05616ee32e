// Figures of a throughput run: what was asked, what was measured, and the report under
// trtllm-bench's keys. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace wideload::runtime {

// One finished request; times in seconds since the run's start.
struct RequestTiming {
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  double start_s = 0;
  double first_token_s = 0;
  double end_s = 0;
};

// Of one figure over requests.
struct Percentiles {
  double p50 = 0, p90 = 0, p95 = 0, p99 = 0, minimum = 0, maximum = 0, average = 0;
};
// Of an unsorted sample, nearest rank; zeros when empty.
Percentiles PercentilesOf(std::vector<double> values);

// What a run came to.
struct BenchFigures {
  double total_latency_ms = 0;
  double request_throughput_req_s = 0;
  double output_throughput_tok_s = 0;
  double total_throughput_tok_s = 0;
  double output_throughput_per_user_tok_s = 0;  // mean of output tokens / latency
  double average_input_length = 0;
  double average_output_length = 0;
  double average_concurrent_requests = 0;
  Percentiles latency_ms;
  Percentiles time_to_first_token_ms;
  Percentiles time_per_output_token_ms;     // of requests with two tokens or more
  Percentiles token_speed_tok_s;            // tokens after the first per second, of the same
  Percentiles input_length, output_length;  // tokens
};
// Of a run that took duration_s seconds, > 0.
BenchFigures ComputeFigures(std::span<const RequestTiming> requests, double duration_s);

}  // namespace wideload::runtime
