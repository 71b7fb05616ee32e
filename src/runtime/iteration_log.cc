#include "runtime/iteration_log.h"

#include <fmt/format.h>

namespace wideload::runtime {

std::string IterationLogLines(const IterationInfo& info, const EngineOptions& options,
                              double seconds, double timestamp) {
  std::string lines;
  for (int32_t r = 0; r < options.num_ranks(); ++r) {
    const GroupIteration& group =
        info.groups[static_cast<size_t>(parallel::CoordinatesOf(options.layout, r).dp)];
    lines += fmt::format(
        "iter = {}, global_rank = {}, rank = {}, currank_total_requests = {}/{}, elapsed_time = "
        "{:.6f}s, timestamp = {:.6f}, "
        "num_scheduled_requests: {}, states = {{'num_ctx_requests': {}, 'num_ctx_tokens': {}, "
        "'num_generation_tokens': {}}}\n",
        info.iteration, r, r, group.num_requests, options.max_batch_size, seconds, timestamp,
        group.num_requests, group.num_prompt_requests, group.num_prompt_tokens,
        group.num_generated_tokens);
  }
  return lines;
}

}  // namespace wideload::runtime
