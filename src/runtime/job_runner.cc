#include "runtime/job_runner.h"

#include <vector>

namespace wideload::runtime {

EngineFigures SumOf(std::span<const EngineFigures> engines) {
  EngineFigures sum;
  for (const EngineFigures& engine : engines) {
    sum.num_waiting += engine.num_waiting;
    sum.num_running += engine.num_running;
    sum.num_iterations += engine.num_iterations;
    sum.num_preemptions += engine.num_preemptions;
    sum.num_held += engine.num_held;
    sum.kv_usage += engine.kv_usage / static_cast<double>(engines.size());
    sum.prefixes.num_queries += engine.prefixes.num_queries;
    sum.prefixes.num_hits += engine.prefixes.num_hits;
    sum.mean_imbalance += engine.mean_imbalance / static_cast<double>(engines.size());
    sum.hand_over.num_prompts += engine.hand_over.num_prompts;
    sum.hand_over.num_bytes += engine.hand_over.num_bytes;
    sum.hand_over.ns += engine.hand_over.ns;
    sum.num_own_prompts += engine.num_own_prompts;
  }
  return sum;
}

EngineFigures JobRunner::AllFigures() const {
  std::vector<EngineFigures> all;
  for (size_t i = 0; i < num_engines(); ++i) all.push_back(figures(i));
  return SumOf(all);
}

}  // namespace wideload::runtime
