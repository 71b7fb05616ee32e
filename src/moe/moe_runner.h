// One rank's way through the routed experts of a layer: route, choose slots, exchange, compute,
// combine at home. Used by the rank's own thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "compute/ops.h"
#include "device/device.h"
#include "exchange/exchange.h"
#include "moe/divided_experts.h"
#include "moe/layout.h"
#include "moe/placement_table.h"
#include "moe/slot_store.h"

namespace wideload::moe {

// One layer's router and experts.
struct MoeWeights {
  compute::PackedMatrix router;  // [E, H], fp32
  Buffer correction_bias;        // [E] F32, or none
  // [parts][E]; empty those that this process does not hold.
  std::vector<compute::ExpertWeights> experts;
};

// Thread CPU time of a rank's own thread in one MoE layer of the last iteration.
struct LayerTimes {
  int64_t balancing_ns = 0;  // to count what it routes and to choose slots
  int64_t computing_ns = 0;  // for the rows of its slots
};

class MoeRunner {
 public:
  // What belongs to this rank; all of it outlives the runner.
  struct Parts {
    exchange::Exchange& exchange;
    comm::Communicator& group;
    SlotStore& slots;
    comm::Communicator* expert_group =
        nullptr;  // of the parts of its experts; null: they are whole
    std::optional<parallel::Shard> layers = {};  // MoE layers of this rank; none: all
  };
  // The table is the one that the slots hold; its placements are valid (ValidatePlacement).
  MoeRunner(const MoeShape& shape, const MoeLayout& layout, const Parts& parts,
            SharedPlacements table);

  // From the next iteration on, as the slots hold it by then. All ranks make the same change
  // between the same iterations.
  void UsePlacements(SharedPlacements table);
  const PlacementTable& placements() const { return *table_; }

  // h += sum over the chosen experts of weight * expert(x) (or expert(weight * x)), for the rank's
  // T tokens (also none), in chunks of at most layout.chunk_tokens, which overlap where
  // layout.num_buffers is kOverlappedChunks. A medium that takes the time D for a message and a
  // chunk that takes C >= D: a layer of N chunks waits D for its first counts and twice what D is
  // longer than the rank's own rows of a chunk take, not 3 D for each chunk. moe_index: position of
  // the layer in shape.layers. x [T, H] F32 (normed), h [T, H] F32. Collective: every rank calls
  // it for every one of its MoE layers in an iteration. Errors: comm::PeerLost.
  void Forward(const compute::Exec& exec, Workspace& workspace, int32_t moe_index,
               const MoeWeights& weights, const TensorView& x, const TensorView& h);

  // The iteration that the calls of Forward belong to; what was counted starts anew. most_tokens:
  // that any rank computes in it.
  void BeginIteration(int64_t iteration, int64_t most_tokens);
  // Of MoeMode::kMicrobatch, else nothing: computes the rows of others that are here. Called by a
  // rank between its ops, so that nobody waits for the end of its attention. Errors:
  // comm::PeerLost.
  void Poll(const compute::Exec& exec, Workspace& workspace);
  // Whether Poll does anything.
  bool IsPolled() const { return layout_.mode == MoeMode::kMicrobatch; }
  // After the last layer: of kMicrobatch, computes what others still send in this iteration. Then
  // nobody has rows for this rank's slots, and they may change. Errors: comm::PeerLost.
  void FinishIteration(const compute::Exec& exec, Workspace& workspace);
  // Whether routed_counts() is kept; not at first.
  void CountRouted(bool is_counting);
  // Entries that this rank's tokens routed to each expert (not slot) in the last iteration [MoE
  // layers * E]; empty when they are not counted.
  std::span<const int32_t> routed_counts() const { return routed_counts_; }
  // Rows that this rank's slots computed in each MoE layer of the last iteration [MoE layers].
  std::span<const int64_t> computed_rows() const { return computed_rows_; }
  // Of kMicrobatch: imbalance of ranks, summed over all layers and iterations but the last, if the
  // split had known the counts of their own iteration; what computed_rows adds to it is the price
  // of not waiting for them. The same on all ranks.
  double imbalance_sum_of_known_counts() const { return known_imbalance_sum_; }
  // [MoE layers]; zero unless layout.is_metered.
  std::span<const LayerTimes> layer_times() const { return layer_times_; }

 private:
  struct Pass;  // one call of Forward
  std::unique_ptr<eplb::SlotChooser> MakeChooser(const eplb::Placement& placement) const;
  void Route(const compute::Exec& exec, Workspace& workspace, const MoeWeights& weights,
             const TensorView& x, Pass& pass);
  TensorView IdsOnHost(const compute::Exec& exec, const TensorView& ids);
  void CountChunk(const Pass& pass, int64_t chunk);
  void Publish(const Pass& pass, int64_t chunk);
  std::span<const int32_t> ChooseSlots(const Pass& pass, int64_t chunk,
                                       std::span<const int32_t> counts);
  bool Send(const Pass& pass, int64_t chunk);
  void SendRows(const Pass& pass, int64_t chunk, std::span<const int32_t> slots);
  void RunOverlapped(const Pass& pass);
  void RunInTurn(const Pass& pass);
  // Out of step.
  void SplitByAgreed();
  void DispatchByAgreed(const Pass& pass, int64_t chunk);
  // The MoE layer that a round of this iteration belongs to.
  size_t LayerOf(int64_t round) const {
    return static_cast<size_t>(layers_.begin + round / num_rounds_);
  }
  bool Serve(const compute::Exec& exec, Workspace& workspace);
  void ComputeGroups(const compute::Exec& exec, Workspace& workspace,
                     std::span<const compute::ExpertGroup> groups, int64_t round);
  void ComputeOwn(const compute::Exec& exec, Workspace& workspace, int64_t round);
  void RunMicrobatch(const Pass& pass);

  bool IsMediumSlow() const;
  void RunPart(const Pass& pass, int64_t chunk, exchange::Exchange::Part part);
  void Receive(int64_t chunk, exchange::Exchange::Part part);
  void Compute(const Pass& pass, int64_t chunk);
  void Return(int64_t chunk);
  void Combine(const Pass& pass, int64_t chunk);

  MoeShape shape_;
  MoeLayout layout_;
  exchange::Exchange& exchange_;
  comm::Communicator& group_;
  SlotStore& store_;
  std::optional<DividedExperts> divided_;
  SharedPlacements table_;
  parallel::Shard layers_;  // of this rank
  int64_t iteration_ = 0;
  std::vector<std::unique_ptr<eplb::SlotChooser>> choosers_;  // [MoE layers]
  std::vector<int32_t> counts_;                               // [E] of a chunk
  std::vector<int32_t> routed_counts_;                        // [MoE layers * E] or empty
  std::vector<int64_t> computed_rows_;                        // [MoE layers]
  std::vector<LayerTimes> layer_times_;                       // [MoE layers]
  std::vector<int32_t> slots_;                                // [C * K]
  device::Memory host_ids_;                                   // [T, K] of kernels on a device
  std::vector<compute::ExpertGroup> groups_;                  // [slots per rank]
  // Of kMicrobatch: rounds of each layer in this iteration, and the first of them in it; what the
  // ranks routed in the iteration before and in this one [MoE layers][R * E].
  int64_t num_rounds_ = 1;
  int64_t first_round_ = 0;
  int64_t rows_per_slot_ = 0;                     // of this rank's last chunk, on average
  std::vector<compute::ExpertGroup> own_groups_;  // this rank's rows while they are computed
  std::vector<const std::byte*> own_x_rows_;
  std::vector<std::byte*> own_y_rows_;
  std::vector<int32_t> agreed_;
  std::vector<int32_t> counted_;
  std::vector<double> rank_loads_;  // [R] scratch
  double known_imbalance_sum_ = 0;
  // What the first counts of the layer were waited for, and the longest computation of a chunk in
  // the layer before.
  int64_t first_wait_ns_ = 0;
  int64_t longest_chunk_ns_ = 0;
};

}  // namespace wideload::moe
