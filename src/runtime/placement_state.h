// Where the experts lie, as the ranks of one process share it: the layout, the host's experts, and
// the newest table of placements. Used by the thread that tells the ranks their steps; what it
// hands out is constant.
#pragma once

#include <cstdint>
#include <vector>

#include "model/model.h"
#include "moe/layout.h"
#include "moe/placement_table.h"
#include "moe/slot_store.h"
#include "rebalance/placement_change.h"
#include "runtime/engine_options.h"

namespace wideload::runtime {

// How the options lay the experts out.
moe::MoeLayout MakeMoeLayout(const moe::MoeShape& shape, const EngineOptions& options);

// What the slots hold at first [MoE layers]. Errors: kInvalid for placements that do not fit.
std::vector<eplb::Placement> StartPlacements(const moe::MoeShape& shape,
                                             const EngineOptions& options);

// Iterations between the step that announces a change and the first one that goes by it: what is
// copied needs time, and a pointer none.
int64_t AnnouncedAhead(moe::SlotStorage storage);

class PlacementState {
 public:
  // `model` outlives the object. With options.verify_slots it looks at all bytes of all experts.
  // Errors: kInvalid for placements that do not fit the model.
  PlacementState(const model::Model& model, const EngineOptions& options);

  const moe::MoeLayout& layout() const { return layout_; }
  // A part of the host's experts; empty when the model has none.
  const moe::HostExperts& experts(int32_t part) const {
    return experts_[static_cast<size_t>(part)];
  }
  // Of that part; null when slots are not verified.
  const moe::ExpertSums* sums(int32_t part) const {
    return sums_.empty() ? nullptr : &sums_[static_cast<size_t>(part)];
  }
  // After all changes so far.
  const moe::SharedPlacements& newest() const { return newest_; }

  // Errors: kInvalid naming what a change may not say; then nothing has changed.
  const moe::SharedPlacements& Apply(const rebalance::PlacementChange& change);

 private:
  moe::MoeShape shape_;
  moe::MoeLayout layout_;
  std::vector<moe::HostExperts> experts_;  // [parts]
  std::vector<moe::ExpertSums> sums_;      // [parts] or none
  moe::SharedPlacements newest_;
};

}  // namespace wideload::runtime
