// Replays routed tokens of one layer against placements and splits, causally: a placement depends
// only on iterations before the one it is measured on, a split only on that iteration's counts.
// Pure; layers are independent, so callers may run them on several threads.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "eplb/placement/batch_loads.h"
#include "eplb/placement/node_rule.h"
#include "eplb/placement/placement.h"
#include "eplb/replay/bounds.h"
#include "eplb/replay/layer_trace.h"
#include "eplb/search/scenario_store.h"

namespace wideload::eplb {

// How an iteration's tokens are divided over replicas. kOptimal is in whole tokens.
enum class SimulatedSplit { kEven, kRoundRobin, kOptimal, kOptimalFractional };
// Errors: kInvalid with the allowed names even, round_robin, optimal, optimal_fractional.
SimulatedSplit ParseSimulatedSplit(const std::string& name);
// The name that ParseSimulatedSplit reads.
std::string SimulatedSplitName(SimulatedSplit split);

// Plans from the recorded iterations; `repair`, where given, changes the placement after each
// measured iteration from what the store holds by then.
struct SimulatedPolicy {
  std::string name;
  std::function<Placement(const BatchLoads& recorded)> plan;  // from the recorded iterations
  std::function<Placement(const Placement& now, const BatchLoads& seen)> repair;
  NodeSizes nodes = {};  // looked at when experts of dead ranks get other slots
};

// What the shared expert adds: every token has one more row, which any rank can compute.
struct SharedExpertRun {
  std::vector<double> imbalance_home;  // [measured iterations] rows computed where the token is
  std::vector<double> imbalance;       // [measured iterations] rows fill up the least busy ranks
  double rows_moved = 0;               // share of the rows that leave the token's rank
};

// One policy under one split.
struct SimulatedRun {
  std::string policy;
  SimulatedSplit split = SimulatedSplit::kEven;
  std::vector<double> imbalance;    // [measured iterations]
  double fetched_slots = 0;         // per iteration, by repair
  int32_t slots_fetched_first = 0;  // when ranks died: for experts that lost their last slot
  // kOptimal: the imbalance of the fractional optimum, and iterations in which a rank got more
  // tokens than its busiest rank's rounded up.
  std::vector<double> imbalance_fractional = {};
  int32_t num_above_ceil = 0;
  SharedExpertRun shared = {};  // empty without a shared expert
  Placement planned = {};       // what was in the slots when measuring began; dead ranks left out
  Placement last = {};          // what repair made of it in the end; `planned` without repair
};

// What is replayed on.
struct SimulateOptions {
  int32_t num_ranks = 1;
  int32_t num_slots = 1;
  std::vector<SimulatedSplit> splits;
  ScenarioStoreOptions store = {};
  double shared_expert_cost = 0;         // of a shared row, in routed rows; 0: no shared expert
  std::vector<int32_t> dead_ranks = {};  // of the plan; they die when measuring begins
};
// The sizes that are left when the dead ranks are gone.
// Errors: kInvalid for a rank out of range, named twice, or all of them.
Sizes LiveSizes(const SimulateOptions& options);

// One run per policy and split, policies outermost. Tokens are dealt to source ranks in equal
// contiguous shares (round robin and the shared expert depend on it).
// Errors: those of the policies, LiveSizes, and of RepairPlacement when live slots are too few.
std::vector<SimulatedRun> SimulateLayer(const LayerTrace& trace, const SimulateOptions& options,
                                        const std::vector<SimulatedPolicy>& policies);

// TensorRT-LLM's greedy placement made anew from each measured iteration's own counts, even split:
// what no causal static plan with even split can expect to beat. [measured iterations]
std::vector<double> ClairvoyantImbalance(const LayerTrace& trace, int32_t num_ranks,
                                         int32_t num_slots);

// Mean and 99th percentile (nearest rank) of values.
struct MeanAndP99 {
  double mean = 0;
  double p99 = 0;
};
// Both 0 without values.
MeanAndP99 Summarise(std::vector<double> values);

}  // namespace wideload::eplb
