#include "loadclient/arrivals.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace wideload::loadclient {
namespace {

// At the request that comes after this share of all.
double RateAt(const ArrivalOptions& options, double share) {
  switch (options.ramp) {
    case Ramp::kLinear:
      return options.start_rps + (options.end_rps - options.start_rps) * share;
    case Ramp::kExponential:
      return options.start_rps * std::pow(options.end_rps / options.start_rps, share);
    case Ramp::kNone:
      break;
  }
  return options.rate_rps;
}

}  // namespace

std::vector<double> ArrivalTimes(const ArrivalOptions& options, size_t num_requests) {
  std::vector<double> times(num_requests, 0);
  if (num_requests == 0 || (options.ramp == Ramp::kNone && std::isinf(options.rate_rps)))
    return times;
  std::mt19937_64 random(options.seed);
  std::gamma_distribution<double> gap(options.burstiness, 1 / options.burstiness);  // of mean 1
  const auto last = static_cast<double>(std::max<size_t>(num_requests - 1, 1));
  double time = 0;
  for (size_t i = 0; i < num_requests; ++i) {
    time += gap(random) / RateAt(options, static_cast<double>(i) / last);
    times[i] = time;
  }
  if (options.ramp != Ramp::kNone || time <= 0) return times;
  const double scale = static_cast<double>(num_requests) / options.rate_rps / time;
  for (double& t : times) t *= scale;
  return times;
}

}  // namespace wideload::loadclient
