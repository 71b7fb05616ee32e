#include "moe/layout.h"

#include <algorithm>

#include "base/error.h"
#include "parallel/mapping.h"

namespace wideload::moe {

MoeMode ParseMoeMode(std::string_view name) {
  if (name == "barrier") return MoeMode::kBarrier;
  if (name == "microbatch") return MoeMode::kMicrobatch;
  Throw(ErrorKind::kInvalid, "MoE mode is \"{}\"; allowed: barrier, microbatch", name);
}

int64_t ChunkTokens(int64_t moe_max_num_tokens, int32_t num_ranks, int64_t max_num_tokens) {
  if (moe_max_num_tokens == 0) return max_num_tokens;
  return std::clamp<int64_t>(moe_max_num_tokens / num_ranks, 1, max_num_tokens);
}

void ValidatePlacement(const MoeShape& shape, const MoeLayout& layout, int32_t moe_index,
                       const eplb::Placement& placement) {
  const std::string where =
      fmt::format("placement of layer {}", shape.layers[static_cast<size_t>(moe_index)]);
  if (placement.num_experts != shape.num_experts || placement.num_ranks != layout.expert_ranks() ||
      placement.num_slots() != layout.num_slots)
    Throw(ErrorKind::kInvalid,
          "{}: has {} experts on {} slots and {} ranks; this run has {} experts, {} slots and {} "
          "ranks",
          where, placement.num_experts, placement.num_slots(), placement.num_ranks,
          shape.num_experts, layout.num_slots, layout.expert_ranks());
  eplb::ValidatePlacement(placement, where);
}

exchange::ExchangeShape MakeExchangeShape(const MoeShape& shape, const MoeLayout& layout,
                                          compute::Precision precision) {
  // A result comes back in as many pieces as the expert has, of which the first is no smaller than
  // any other.
  const int64_t element = DTypeBytes(precision.activations);
  const int64_t row_bytes = shape.hidden * element;
  return {.num_ranks = layout.num_ranks,
          .max_rows = layout.chunk_tokens,
          .top_k = static_cast<int>(shape.top_k() * layout.parts),
          .row_bytes = row_bytes,
          .return_row_bytes = parallel::ColumnEnds(shape.hidden, layout.parts)[0] * element,
          .num_experts = static_cast<int>(shape.num_experts),
          .num_slots = layout.num_slots * layout.parts,
          .num_buffers = layout.num_buffers,
          .is_free = layout.mode == MoeMode::kMicrobatch};
}

}  // namespace wideload::moe
