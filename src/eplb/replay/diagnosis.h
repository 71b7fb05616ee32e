// Is balancing worth it for a recorded load, what limits it, and which sizes to take: figures of
// plans made from one half of the batches and measured on the other, and the decision that follows
// from them. Pure; one layer at a time for the figures; thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "eplb/placement/batch_loads.h"
#include "eplb/replay/bounds.h"

namespace wideload::eplb {

// One way to lay a layer out, measured on batches that the plan did not see.
struct SizeFigures {
  Sizes sizes;
  double imbalance_even = 0;     // TensorRT-LLM's policy, even split
  double imbalance_optimal = 0;  // the scenario plan, optimal split of each batch
  double imbalance_seen = 0;     // the same plan on the batches it was made from
  double replica_capacity_bound = 0;
  double component_bound = 0;
  double fewest_components = 1;
};

// Means over layers.
struct DiagnosisFigures {
  int32_t num_experts = 0;
  double choices_per_iteration = 0;  // routed tokens of a layer and batch
  double imbalance_now = 0;          // experts in order, no spare slots, even split
  double sampling_floor = 0;         // what a perfect static plan would show by chance alone
  SizeFigures asked;                 // the sizes the question is about
  // imbalance_optimal of `asked` when the plan is made from every other batch and measured on the
  // rest, so that no drift lies between the two.
  double imbalance_interleaved = 0;
  std::vector<SizeFigures> others;  // other slots and ranks
};

// Other sizes worth a look for the asked ones: no spare slots, one component, and one slot more per
// rank; half and twice the ranks with one component.
std::vector<Sizes> SizesToCompare(int32_t num_experts, const Sizes& asked);

// `recorded` and `measured` must have load. max_moves: as PlanOptions.
struct DiagnosisInput {
  const BatchLoads& recorded;
  const BatchLoads& measured;
  int64_t max_moves = 1000;
  uint64_t seed = 1;
};
SizeFigures MeasureSizes(const DiagnosisInput& input, const Sizes& sizes);
// Experts in order with the fewest slots that num_ranks divides; even split.
double ContiguousImbalance(const BatchLoads& measured, int32_t num_ranks);

enum class Worth { kNo, kLittle, kYes };
enum class Limit { kNothing, kReplicaCapacity, kComponents, kDrift, kBatchNoise };

struct Diagnosis {
  Worth worth = Worth::kNo;
  Limit limit = Limit::kNothing;
  double speed_up = 1;       // of expert work: the busiest rank's tokens now over those after
  SizeFigures best;          // what to take
  bool needs_split = false;  // most of the gain is in the split of each batch, not in the plan
};

// Worth: expert work becomes 5 % (little: 2 %) shorter with the best sizes on the asked ranks.
// Limit: the largest of what holds the asked sizes above 0.01: bounds; drift, which is what the
// order of the batches costs; the noise of single batches, which is the rest. Best: the fewest
// slots within 0.005 of the best on the asked ranks; half the ranks only when these stay above 0.1
// on all slots and halving them halves it.
Diagnosis Decide(const DiagnosisFigures& figures);

// The decision in three sentences with figures, one per line.
std::string DiagnosisText(const DiagnosisFigures& figures, const Diagnosis& diagnosis);

std::string WorthName(Worth worth);
std::string LimitName(Limit limit);

}  // namespace wideload::eplb
