// Is balancing worth it for a recorded load, what limits it, and which sizes to take: figures of
// plans made from one half of the batches and measured on the other, and the decision that follows
// from them. Pure; one layer at a time for the figures; thread-safe.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "eplb/placement/batch_loads.h"
#include "eplb/replay/bounds.h"

namespace wideload::eplb {

// One way to lay a layer out, measured on batches that the plan did not see.
struct SizeFigures {
  Sizes sizes;
  double imbalance_even = 0;       // TensorRT-LLM's policy, even split
  double imbalance_even_seen = 0;  // the same plan on the batches it was made from
  // The policy even, even split, and the same on the batches it was made from. MeasureSizes has the
  // two above here where it does not look at it.
  double imbalance_search = std::numeric_limits<double>::infinity();
  double imbalance_search_seen = 0;
  double imbalance_optimal = 0;  // the scenario plan, optimal split of each batch
  double imbalance_seen = 0;     // the same plan on the batches it was made from
  double replica_capacity_bound = 0;
  double component_bound = 0;
  double fewest_components = 1;
};

// Means over layers.
struct DiagnosisFigures {
  // Whether the engine splits each batch by its counts: then the decision looks at the optimal
  // split, else at the even one.
  bool splits_by_counts = true;
  int32_t num_experts = 0;
  double choices_per_iteration = 0;  // routed tokens of a layer and batch
  double imbalance_now = 0;          // the layout that ran, or experts in order, even split
  double sampling_floor = 0;         // what a perfect static plan would show by chance alone
  SizeFigures asked;                 // the sizes the question is about
  // What `asked` shows when the plan is made from every other batch and measured on the rest, so
  // that no drift lies between the two; under the split that the decision looks at.
  double imbalance_interleaved = 0;
  std::vector<SizeFigures> others;  // other slots and ranks

  // Whether the policy even has the better plan for these sizes.
  static bool PrefersSearch(const SizeFigures& size) {
    return size.imbalance_search < size.imbalance_even;
  }
  // Of these sizes, under the split that the decision looks at; the better plan for an even split.
  double Imbalance(const SizeFigures& size) const {
    if (splits_by_counts) return size.imbalance_optimal;
    return PrefersSearch(size) ? size.imbalance_search : size.imbalance_even;
  }
  // Likewise, on the batches that the plan was made from.
  double ImbalanceSeen(const SizeFigures& size) const {
    if (splits_by_counts) return size.imbalance_seen;
    return PrefersSearch(size) ? size.imbalance_search_seen : size.imbalance_even_seen;
  }
};

// Other sizes worth a look for the asked ones: no spare slots, one component, and one slot more per
// rank; half and twice the ranks with one component.
std::vector<Sizes> SizesToCompare(int32_t num_experts, const Sizes& asked);

// `recorded` and `measured` must have load. max_moves: as PlanOptions.
struct DiagnosisInput {
  const BatchLoads& recorded;
  const BatchLoads& measured;
  int64_t max_moves = 1000;
  bool searches_for_even = false;  // looks at the policy even, too
  uint64_t seed = 1;
};
// Figures of plans from `recorded`, measured on `measured`. Errors: kInvalid from ValidateSizes.
SizeFigures MeasureSizes(const DiagnosisInput& input, const Sizes& sizes);
// Experts in order with the fewest slots that num_ranks divides; even split.
double ContiguousImbalance(const BatchLoads& measured, int32_t num_ranks);

// Whether balancing pays, and what holds it back; see Decide.
enum class Worth { kNo, kLittle, kYes };
// What keeps the imbalance from 0.
enum class Limit { kNothing, kReplicaCapacity, kComponents, kDrift, kBatchNoise };

// What figures come to.
struct Diagnosis {
  Worth worth = Worth::kNo;  // of the asked sizes
  double speed_up = 1;       // of expert work: the busiest rank's tokens now over those after
  Limit limit = Limit::kNothing;
  double drift = 0;  // what the order of the batches costs the asked sizes
  SizeFigures best;  // what to take of all sizes that were measured
  Worth best_worth = Worth::kNo;
  double best_speed_up = 1;
  // Most of what the optimal split of each batch would gain with the best sizes is out of reach of
  // an even split.
  bool needs_split = false;
};

// Worth: expert work becomes 5 % (little: 2 %) shorter. Limit: the largest of what holds the asked
// sizes above 0.01: bounds (that of components for engines that split by counts); drift; the noise
// of single batches, which is the rest. Best: the fewest slots within 0.005 of the best on the
// asked ranks; half the ranks only when these stay above 0.1 on all slots and halving them halves
// it.
Diagnosis Decide(const DiagnosisFigures& figures);

// "no", "little", "yes".
std::string WorthName(Worth worth);
// "nothing", "replica_capacity", "components", "drift", "batch_noise".
std::string LimitName(Limit limit);

}  // namespace wideload::eplb
