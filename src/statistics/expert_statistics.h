// Expert statistics in memory: how many tokens each rank routed to each expert, per iteration and
// layer. Plain values; thread-safe when not changed.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "eplb/placement/batch_loads.h"
#include "statistics/eplb_yaml.h"

namespace wideload::statistics {

struct ExpertStatistics {
  int32_t num_experts = 0;
  int32_t experts_per_token = 0;
  int32_t ep_size = 1;  // ranks that recorded
  // Ranks that recorded a layer; fewer than ep_size when pipeline stages recorded layers of their
  // own. 0: all.
  int32_t ranks_per_layer = 0;
  int64_t iter_start = 0;
  int64_t num_iterations = 0;
  std::vector<int32_t> layers =
      {};                 // layer indices of the model, ascending; dense layers leave gaps
  int32_t num_ranks = 1;  // rows per layer: ep_size, or 1 when the ranks were summed
  std::vector<int64_t> counts = {};  // [num_iterations, layers, num_ranks, num_experts]

  int64_t iter_stop() const { return iter_start + num_iterations; }
  size_t num_layers() const { return layers.size(); }
  // Offset of a row of num_experts counts; `iteration` counts from 0.
  size_t RowOffset(int64_t iteration, size_t layer, int32_t rank) const {
    return ((static_cast<size_t>(iteration) * layers.size() + layer) *
                static_cast<size_t>(num_ranks) +
            static_cast<size_t>(rank)) *
           static_cast<size_t>(num_experts);
  }
  // [num_experts] counts; `iteration` from 0, `layer` and `rank` as rows are numbered.
  std::span<const int64_t> Row(int64_t iteration, size_t layer, int32_t rank) const {
    return std::span(counts).subspan(RowOffset(iteration, layer, rank),
                                     static_cast<size_t>(num_experts));
  }
  bool operator==(const ExpertStatistics&) const = default;
};

// sum += addend, element by element. Errors: kInvalid prefixed by `where` when a sum exceeds int64.
void AddCounts(std::span<const int64_t> addend, std::span<int64_t> sum, const std::string& where);

// One row per iteration and layer: the ranks' counts added up. Errors: kInvalid on overflow.
ExpertStatistics SumRanks(const ExpertStatistics& statistics);

// [num_experts] counts of layer number `layer` over all iterations and ranks. Errors: kInvalid on
// overflow.
std::vector<int64_t> LayerLoads(const ExpertStatistics& statistics, size_t layer);

// Layer number `layer` as policies plan from it: each iteration is a batch, ranks added up.
eplb::BatchLoads LayerBatches(const ExpertStatistics& statistics, size_t layer);

// The statistics of these layers alone. Errors: kInvalid prefixed by `where` for a layer that is
// not there.
ExpertStatistics TakeLayers(const ExpertStatistics& statistics, const std::vector<int32_t>& layers,
                            const std::string& where);

// Statistics that were recorded per slot (TensorRT-LLM does so under EPLB), as counts per expert.
// Errors: kInvalid naming `source`: another slot count than the placement file's num_slots, a layer
// that it does not place.
ExpertStatistics SlotsToExperts(const ExpertStatistics& statistics, const EplbConfig& config,
                                const std::string& source);

}  // namespace wideload::statistics
