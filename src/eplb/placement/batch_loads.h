// The recorded loads of one layer: how many tokens chose each expert, batch by batch. What every
// policy plans from. Plain value; not thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace wideload::eplb {

// Whether any expert has tokens. Layers and batches without are never searched for: a layer is
// placed as for equal loads (Policy), a batch is left out.
bool HasLoad(std::span<const double> loads);

// Weighted count vectors. Batches of a layer count its tokens in the order they were recorded.
struct BatchLoads {
  int32_t num_experts = 0;
  std::vector<double> loads = {};      // [size * num_experts] tokens, finite and >= 0
  std::vector<double> weights = {};    // [size], each > 0
  std::vector<double> unbatched = {};  // [num_experts] tokens of no batch, in Sum only; empty: none

  int32_t size() const { return static_cast<int32_t>(weights.size()); }
  // Batch number i; [num_experts] tokens.
  std::span<const double> At(int32_t i) const {
    return std::span(loads).subspan(static_cast<size_t>(i) * static_cast<size_t>(num_experts),
                                    static_cast<size_t>(num_experts));
  }
  // Errors: kInvalid for another number of experts or a load that is negative or not finite.
  void Add(std::span<const double> load, double weight = 1.0);
  // Sum over batches, each scaled to the same total and weighted; [num_experts].
  std::vector<double> Mean() const;
  // Sum of the loads as they are, without weights: what TensorRT-LLM and DeepSeek plan from.
  std::vector<double> Sum() const;
  // The last batch is of no batch from now on: one that is shorter than the others.
  void UnbatchLast();
  // The batches that have load, without the unbatched rest.
  BatchLoads WithLoad() const;
};

// One batch that loads every expert equally: what a layer without load is planned for.
BatchLoads EqualLoads(int32_t num_experts);

}  // namespace wideload::eplb
