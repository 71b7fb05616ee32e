// Mode::kTensorRtLlm: TensorRT-LLM's online balancer, rule for rule.
#pragma once

#include <cstdint>
#include <vector>

#include "rebalance/planner.h"

namespace wideload::rebalance {

// Which layers are placed anew at each step: in ceil(layers / updates) groups, layer l in group
// l mod groups, one group a step in turn; an empty one more where the first and the last group have
// the same size. So 58 layers with 1 update take 59 steps, 61 with 10 take 7.
std::vector<std::vector<int32_t>> UpdateGroups(int32_t num_layers, int32_t layer_updates_per_iter);

// Each layer's load is 0.95 x its load + the iteration's counts and 0 after it was placed, in
// float. The greedy policy places it without a look at what the slots hold now. Warm-up neither
// counts nor takes a step.
class TensorRtLlmPlanner : public Planner {
 public:
  // start [MoE layers]: what the slots hold; layers placed anew at each step, >= 1.
  TensorRtLlmPlanner(int32_t layer_updates_per_iter, std::vector<eplb::Placement> start);
  std::vector<LayerChange> Plan(const IterationCounts& counts) override;

 private:
  std::vector<eplb::Placement> now_;  // [layers] what the slots hold once all plans have effect
  std::vector<std::vector<int32_t>> groups_;
  size_t next_group_ = 0;
  std::vector<std::vector<float>> loads_;  // [layers][experts]
};

}  // namespace wideload::rebalance
