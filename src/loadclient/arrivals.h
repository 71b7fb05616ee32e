// When the requests of a load test start, drawn as `vllm bench serve` draws them. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace wideload::loadclient {

// How the rate changes from the first request to the last.
enum class Ramp { kNone, kLinear, kExponential };

// A rate of infinity starts all requests at once.
struct ArrivalOptions {
  double rate_rps = std::numeric_limits<double>::infinity();  // without a ramp; > 0
  // Shape of the gamma distribution of the gaps: 1 is Poisson, less has bursts, more is even; > 0.
  double burstiness = 1;
  Ramp ramp = Ramp::kNone;
  double start_rps = 0, end_rps = 0;  // of a ramp; > 0
  uint64_t seed = 0;
};

// Seconds from the run's start to each of `num_requests` requests, rising. Without a ramp the last
// one is at num_requests / rate_rps exactly, so that runs of one rate last equally long.
std::vector<double> ArrivalTimes(const ArrivalOptions& options, size_t num_requests);

}  // namespace wideload::loadclient
