#include "eplb/scenario_planner.h"

#include "base/error.h"
#include "eplb/component_plan.h"
#include "eplb/plan_search.h"

namespace wideload::eplb {

Placement PlanPlacement(const Scenarios& scenarios, const PlanOptions& options) {
  if (scenarios.size() == 0) Throw(ErrorKind::kInvalid, "scenario plan: no scenario is given");
  const Placement start = ComponentPlan(scenarios.Mean(), options.num_slots, options.num_ranks);
  if (options.max_moves == 0) return start;
  PlanSearch search(scenarios, start, {.max_moves = options.max_moves, .seed = options.seed});
  search.Run();
  return search.placement();
}

}  // namespace wideload::eplb
