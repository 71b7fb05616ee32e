// How the experts of a model are spread over ranks: plain values, the same on all ranks.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "compute/ops.h"
#include "eplb/split/slot_chooser.h"
#include "exchange/layout.h"

namespace wideload::moe {

// The same for every MoE layer of a model.
struct MoeShape {
  int64_t hidden = 0;
  int64_t num_experts = 0;        // 0: the model has no MoE layer
  compute::RouterOptions router;  // but for the bias, which each layer has for itself
  // An expert computes with (weight * x) and its output is added as it is; top_k is 1.
  bool weights_scale_inputs = false;
  compute::GatedActivation activation;  // of experts, and of dense MLPs beside them
  std::vector<int32_t> layers;          // model layers that are MoE, ascending

  int64_t top_k() const { return router.top_k; }
  int32_t num_layers() const { return static_cast<int32_t>(layers.size()); }
};

// While a chunk is computed, the next one's rows travel, and the results of the one before.
inline constexpr int kOverlappedChunks = 3;

// How the ranks of a layer meet.
enum class MoeMode {
  // Every rank knows the counts of all before it sends, and has the results of all at the end.
  kBarrier,
  // A rank computes rows as they come, and goes on once its own results are home; it splits by the
  // counts of the iteration before. Same results.
  kMicrobatch,
};
// Errors: kInvalid with the allowed names barrier, microbatch.
MoeMode ParseMoeMode(std::string_view name);

// The ranks of the experts, and what each layer's slots hold.
struct MoeLayout {
  int32_t num_ranks = 1;
  // Each expert is divided among so many ranks (moe_tp): the ranks of a slot's parts are
  // num_ranks / parts apart.
  int32_t parts = 1;
  int32_t num_slots = 0;  // of each layer, for whole experts
  eplb::SplitMode split = eplb::SplitMode::kOptimal;
  MoeMode mode = MoeMode::kBarrier;
  int64_t chunk_tokens = 0;  // tokens a rank sends through a layer at once (C)
  // Chunks of a layer whose rows and results have memory at the same time (B): 1, one after the
  // other, or kOverlappedChunks. The exchange's memory is bounded by C and B, whatever a rank
  // computes in an iteration.
  int num_buffers = 1;
  bool is_metered = false;  // whether LayerTimes are measured

  // Ranks that hold the first part of all slots.
  int32_t expert_ranks() const { return num_ranks / parts; }
  int32_t slots_per_rank() const { return num_slots / expert_ranks(); }
};

// C for `moe_max_num_tokens` summed over the ranks (0: no limit): at least 1, at most what a rank
// can have in an iteration.
int64_t ChunkTokens(int64_t moe_max_num_tokens, int32_t num_ranks, int64_t max_num_tokens);

// Errors: kInvalid when the placement is not of this model or layout, naming the layer.
// moe_index: position of the layer in shape.layers.
void ValidatePlacement(const MoeShape& shape, const MoeLayout& layout, int32_t moe_index,
                       const eplb::Placement& placement);

// What the ranks' exchange must agree on.
exchange::ExchangeShape MakeExchangeShape(const MoeShape& shape, const MoeLayout& layout,
                                          compute::Precision precision);

}  // namespace wideload::moe
