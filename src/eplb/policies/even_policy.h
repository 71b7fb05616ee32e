// The policy for engines that split an expert's tokens evenly, or round robin, over its slots, as
// TensorRT-LLM, vLLM and SGLang do: which experts share a rank, and how many slots each has, so
// that later batches of the recorded kind load ranks equally. One layer at a time; pure, the same
// result for the same seed on any thread and processor.
#pragma once

#include <cstdint>

#include "eplb/placement/batch_loads.h"
#include "eplb/placement/node_rule.h"
#include "eplb/placement/placement.h"

namespace wideload::eplb {

struct EvenPlanOptions {
  Sizes sizes;
  NodeSizes nodes = {};
  // Slots that may hold experts of other nodes; negative: as many as there are nodes.
  int32_t max_cross_slots = -1;
  uint64_t seed = 1;
  int64_t proposals = 0;  // of the search; 0: as many as 40 ms have time for, up to 300 000
  // What the slots hold now, and what is added to the objective (about the mean imbalance) for each
  // slot that its rank must fetch. Above 0 the search starts from `current`, too. Not owned.
  const Placement* current = nullptr;
  double fetch_price = 0;
};

// Anneals from TensorRT-LLM's greedy placement, over nodes from one that keeps groups on nodes. The
// objective is that of EvenState over EvenModel; experts that are hot together come apart, which
// takes a dozen recorded batches to see: with few the plan is about the greedy one.
// Errors: kInvalid from ValidateSizes, MakeNodeRule and CheckFetchPrice, when no batch has load.
Placement PlanForEvenSplit(const BatchLoads& recorded, const EvenPlanOptions& options);

}  // namespace wideload::eplb
