#include "runtime/exchange_figures.h"

namespace wideload::runtime {

double ExchangeFigures::WaitsPerIteration(exchange::WaitKind kind) const {
  if (num_iterations == 0) return 0;
  return static_cast<double>(waits[static_cast<size_t>(kind)].num_waits) /
         static_cast<double>(num_iterations);
}

double ExchangeFigures::MicrosecondsPerWait(exchange::WaitKind kind) const {
  const comm::WaitStatistics& wait = waits[static_cast<size_t>(kind)];
  if (wait.num_waits == 0) return 0;
  return static_cast<double>(wait.total_ns) * 1e-3 / static_cast<double>(wait.num_waits);
}

double ExchangeFigures::MeanImbalance() const {
  return num_imbalances == 0 ? 0 : imbalance_sum / static_cast<double>(num_imbalances);
}

double ExchangeFigures::MeanBalancedness() const {
  return num_imbalances == 0 ? 1 : balancedness_sum / static_cast<double>(num_imbalances);
}

double ExchangeFigures::MeanKnownImbalance() const {
  return num_imbalances == 0 ? 0 : known_imbalance_sum / static_cast<double>(num_imbalances);
}

ExchangeFigures operator-(const ExchangeFigures& later, const ExchangeFigures& earlier) {
  ExchangeFigures difference = later;
  difference.num_iterations -= earlier.num_iterations;
  difference.num_rounds -= earlier.num_rounds;
  difference.num_rows -= earlier.num_rows;
  difference.num_returns -= earlier.num_returns;
  for (size_t kind = 0; kind < difference.waits.size(); ++kind) {
    difference.waits[kind].num_waits -= earlier.waits[kind].num_waits;
    difference.waits[kind].total_ns -= earlier.waits[kind].total_ns;
  }
  difference.imbalance_sum -= earlier.imbalance_sum;
  difference.balancedness_sum -= earlier.balancedness_sum;
  difference.num_imbalances -= earlier.num_imbalances;
  difference.known_imbalance_sum -= earlier.known_imbalance_sum;
  return difference;
}

const char* WaitKindName(exchange::WaitKind kind) {
  switch (kind) {
    case exchange::WaitKind::kCounts:
      return "counts";
    case exchange::WaitKind::kRows:
      return "rows";
    case exchange::WaitKind::kReturns:
      return "returns";
  }
  return "";
}

}  // namespace wideload::runtime
