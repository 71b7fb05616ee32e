// Which replica computes which token: per chunk, from the counts of all ranks, the same on every
// rank. A choice is a function of the placement and of the chunk's counts alone, not of chunks
// before. One object per rank and layer (it holds what Prepare decided until the next one, and
// scratch); not thread-safe. Steady state allocates nothing.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "eplb/placement/placement.h"
#include "eplb/split/integer_split.h"

namespace wideload::eplb {

// Which rule divides an expert's tokens over its slots.
enum class SplitMode {
  kOptimal,  // water-filling with integer quotas: the most loaded rank gets ceil of the fractional
             // optimum
  kRoundRobin,  // TensorRT-LLM's token-to-replica rule
  kFirst,       // always the expert's first slot
};
// Errors: kInvalid with the allowed names optimal, round_robin, first.
SplitMode ParseSplitMode(std::string_view name);

class SlotChooser {
 public:
  // For a valid placement, which need not outlive this object, and as many sources of tokens as it
  // has ranks.
  SlotChooser(const Placement& placement, SplitMode mode)
      : SlotChooser(placement, mode, placement.num_ranks) {}
  // For more sources, a multiple of the placement's ranks: source s is at home on rank s %
  // num_ranks.
  SlotChooser(const Placement& placement, SplitMode mode, int32_t num_sources);

  // counts [num_sources * num_experts], row r: tokens of source r routed to each expert in this
  // chunk. Every rank passes the same counts. Must be called before ChooseSlots for each chunk (a
  // no-op but for kOptimal).
  void Prepare(std::span<const int32_t> counts);

  // expert_ids [n]: the routed entries of rank `source` in this chunk, flattened (token, k); their
  // counts must be row `source` of Prepare. Writes slots [n]. Negative ids give slot -1.
  void ChooseSlots(EpRank source, std::span<const int32_t> expert_ids, std::span<int32_t> slots);

  // As ChooseSlots, when Prepare was given counts of other tokens than these: those of each expert
  // are divided in proportion to its quotas. Any rank may route any number of them; ranks begin at
  // different places.
  void ChooseSlotsInProportion(EpRank source, std::span<const int32_t> expert_ids,
                               std::span<int32_t> slots);

  // Tokens per slot that Prepare decided (kOptimal only) [num_slots].
  std::span<const int32_t> quotas() const { return quotas_; }

 private:
  // A run of tokens of one shared expert from one source that go to the same slot.
  struct Run {
    int32_t slot = -1;
    int32_t tokens = 0;
  };
  void ChooseOptimal(EpRank source, std::span<const int32_t> expert_ids, std::span<int32_t> slots);
  void MakeRuns(int32_t shared, int32_t source);
  int32_t SlotInProportion(int32_t shared, int32_t source, int32_t token) const;
  int32_t NextSlotOfShared(int32_t shared, int32_t source);

  Placement placement_;
  RoutingTable table_;
  SplitMode mode_;
  int32_t num_sources_;
  IntegerSplit split_;
  std::vector<int32_t> quotas_;
  std::vector<int64_t> totals_;         // [num_experts] tokens of the chunk
  std::vector<int32_t> shared_counts_;  // [num_shared * num_sources] tokens by source
  std::vector<int32_t> left_quota_;     // [num_edges] what local tokens leave of the quotas
  std::vector<Run> runs_;               // by shared expert, one more than its edges
  std::vector<int32_t> run_cursor_;     // [num_shared] -1: runs not made yet for this source
  std::vector<int32_t> arrivals_;       // [num_experts] scratch: tokens seen
};

}  // namespace wideload::eplb
