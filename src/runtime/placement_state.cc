#include "runtime/placement_state.h"

#include <utility>
#include <vector>

#include "base/error.h"

namespace wideload::runtime {
moe::MoeLayout MakeMoeLayout(const moe::MoeShape& shape, const EngineOptions& options) {
  const int64_t most_tokens = options.TokensPerRank(options.max_num_tokens);
  const int64_t chunk_tokens =
      moe::ChunkTokens(options.moe_max_num_tokens, options.layout.stage(), most_tokens);
  const bool is_chunked = chunk_tokens < most_tokens;
  return {.num_ranks = options.layout.stage(),
          .parts = options.layout.moe_tp,
          .num_slots =
              options.num_slots > 0 ? options.num_slots : static_cast<int32_t>(shape.num_experts),
          .split = options.split,
          .mode = options.moe_mode,
          .chunk_tokens = chunk_tokens,
          .num_buffers = is_chunked ? moe::kOverlappedChunks : 1,
          .is_metered = options.is_metered};
}

int64_t AnnouncedAhead(moe::SlotStorage storage) {
  return storage == moe::SlotStorage::kCopy ? 1 : 0;
}

std::vector<eplb::Placement> StartPlacements(const moe::MoeShape& shape,
                                             const EngineOptions& options) {
  const moe::MoeLayout layout = MakeMoeLayout(shape, options);
  std::vector<eplb::Placement> placements = options.placements;
  if (placements.empty() && shape.num_experts > 0)
    placements.assign(shape.layers.size(),
                      eplb::ContiguousPlacement(static_cast<int32_t>(shape.num_experts),
                                                layout.num_slots, layout.expert_ranks()));
  WIDELOAD_CHECK(placements.size() == shape.layers.size(), "{} placements for {} MoE layers",
                 placements.size(), shape.layers.size());
  for (int32_t i = 0; i < shape.num_layers(); ++i)
    moe::ValidatePlacement(shape, layout, i, placements[static_cast<size_t>(i)]);
  return placements;
}

PlacementState::PlacementState(const model::Model& model, const EngineOptions& options)
    : shape_(model.spec().moe),
      layout_(MakeMoeLayout(shape_, options)),
      newest_(moe::MakePlacementTable(0, StartPlacements(shape_, options))) {
  for (int32_t part = 0; part < layout_.parts; ++part) {
    experts_.emplace_back();
    for (int32_t i = 0; i < shape_.num_layers(); ++i)
      experts_.back().push_back(model.Experts(i, part));
  }
  if (!options.verify_slots) return;
  ThreadPool pool("sums", options.threads_per_rank);
  for (const moe::HostExperts& experts : experts_) sums_.push_back(moe::SumExperts(experts, pool));
}

const moe::SharedPlacements& PlacementState::Apply(const rebalance::PlacementChange& change) {
  if (change.generation <= newest_->generation)
    Throw(ErrorKind::kInvalid, "a change of placements has generation {}; it must be above {}",
          change.generation, newest_->generation);
  std::vector<eplb::Placement> placements = newest_->placements;
  int32_t last = -1;
  for (const rebalance::LayerChange& layer : change.layers) {
    if (layer.moe_layer <= last || layer.moe_layer >= shape_.num_layers())
      Throw(ErrorKind::kInvalid,
            "a change of placements names MoE layer {} after {}; it must name layers below {} in "
            "ascending order",
            layer.moe_layer, last, shape_.num_layers());
    last = layer.moe_layer;
    moe::ValidatePlacement(shape_, layout_, layer.moe_layer, layer.placement);
    placements[static_cast<size_t>(layer.moe_layer)] = layer.placement;
  }
  newest_ = moe::MakePlacementTable(change.generation, std::move(placements));
  return newest_;
}

}  // namespace wideload::runtime
