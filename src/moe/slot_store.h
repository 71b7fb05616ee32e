// The weights in one rank's expert slots. Storage `view` points at the host's experts: a replica
// costs no memory and a change of placement is a pointer. Storage `copy` owns the bytes, as a
// device would: what a change fetches is copied by threads of its own, ahead of the change where
// spare blocks are free, else after it, layer by layer. Same results. Used by the rank's thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/thread_pool.h"
#include "compute/matrix.h"
#include "moe/expert_sums.h"
#include "moe/placement_table.h"
#include "moe/slot_copier.h"
#include "parallel/mapping.h"

namespace wideload::moe {

// Whether slots point at the host's experts or hold copies.
enum class SlotStorage { kView, kCopy };
// Errors: kInvalid with the allowed names view, copy.
SlotStorage ParseSlotStorage(std::string_view name);

// How slots get their weights.
struct SlotOptions {
  SlotStorage storage = SlotStorage::kView;
  int32_t rank = 0;                            // of the run
  int32_t ep_rank = 0;                         // of the placements
  std::optional<parallel::Shard> layers = {};  // MoE layers that have slots here; none: all
  int32_t num_spare = 1;         // of kCopy: blocks beside those in use, for all layers together
  int64_t bytes_per_second = 0;  // of kCopy: most that changes copy; 0: no limit
  std::atomic<uint32_t>* progress = nullptr;  // raised as copies get on; may be null
  trace::Trace* trace = nullptr;              // gets tracks of the threads that copy; may be null
};

// The bytes of the blocks, in use and spare; 0 for kView. `num_slots` of the rank, in all layers;
// `expert_bytes` of the largest expert.
int64_t SlotStoreBytes(const SlotOptions& options, int64_t num_slots, int64_t expert_bytes);

// What filling slots came to.
struct SlotFigures {
  int64_t num_fetched = 0;   // slots filled since the start with what their rank did not hold
  int64_t copied_bytes = 0;  // 0 for kView
  int64_t waited_ns = 0;     // by the rank, for copies
};

class SlotStore {
 public:
  // The slots hold the experts of `start`; kCopy has copied them when this returns. `experts` and
  // what options.progress points at outlive the store. Errors: kResource.
  SlotStore(const HostExperts& experts, const PlacementTable& start, const SlotOptions& options);
  ~SlotStore();
  SlotStore(const SlotStore&) = delete;
  SlotStore& operator=(const SlotStore&) = delete;

  // The table of the next Use, as soon as it is known: the copies that find a spare block begin.
  void Announce(const PlacementTable& next);
  // From now on the slots hold `next`'s experts, announced or not. No round that computes with the
  // table before is under way on this rank; only its own rounds read its slots.
  void Use(const PlacementTable& next);

  // The weights in the slots of a layer, one of options.layers, [slots per rank], valid until Use.
  // Waits for copies.
  std::span<const compute::ExpertWeights* const> Layer(int32_t moe_index);

  // Waits for all copies and compares every slot with `sums`. Errors: kCorrupt naming rank, MoE
  // layer, slot (of all ranks) and expert of the first slot that differs.
  void Verify(const ExpertSums& sums, ThreadPool& pool);

  const SlotFigures& figures() const { return figures_; }
  // Of memory of its own; 0 for views.
  int64_t num_bytes() const;

 private:
  void NoteHeld(const PlacementTable& table, std::vector<int32_t>& held) const;
  const compute::ExpertWeights& HostExpert(size_t index, int32_t expert) const;
  void MakeCopies();
  void PlanMoves(const PlacementTable& next);
  void KeepBlocks(size_t layer);
  void BeginCopies();
  void PointAtSlots();

  const HostExperts& experts_;
  SlotOptions options_;
  size_t first_layer_;
  size_t num_layers_;
  size_t slots_per_rank_;
  std::vector<const compute::ExpertWeights*> weights_;  // [layers * slots per rank]
  std::vector<int32_t> held_;                           // the experts in them
  int64_t announced_ = -1;                              // generation; -1: none
  std::vector<int32_t> next_held_;                      // of the announced table
  // Of kCopy.
  std::unique_ptr<SlotCopier> copier_;  // else null
  int turn_ = 0;                        // of the table in use
  std::vector<int32_t> blocks_;         // of the slots
  std::vector<int32_t> next_blocks_;    // of the announced table; -1: one that Use will free
  std::vector<int32_t> free_blocks_;
  std::vector<char> is_used_;  // [blocks] by the announced table
  SlotFigures figures_;
};

}  // namespace wideload::moe
