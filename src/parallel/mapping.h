// World rank -> coordinates (tp, dp, cp, pp, moe_tp, moe_ep), and which part of a dimension a rank
// owns. Pure. Source: the rank arithmetic that TensorRT-LLM documents for tensor_parallel_size,
// moe_tensor_parallel_size and moe_expert_parallel_size.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace wideload::parallel {

// Sizes of a layout. world = tp * dp * cp * pp, and the ranks of a stage of the pipeline hold its
// experts: tp * dp * cp = moe_tp * moe_ep. TensorRT-LLM's tensor_parallel_size is tp, or with
// enable_attention_dp it is dp and tp is 1.
struct Layout {
  int32_t tp = 1;  // ranks that share the attention of their requests
  int32_t dp = 1;  // groups of tp ranks, each with requests of its own
  int32_t cp = 1;  // such ranks that share the context of their requests
  int32_t pp = 1;  // stages
  int32_t moe_tp = 1;
  int32_t moe_ep = 1;

  int32_t stage() const { return tp * dp * cp; }
  int32_t world() const { return stage() * pp; }
  bool operator==(const Layout&) const = default;
};

// `num_ranks` ranks, each with requests of its own and its share of the experts.
inline Layout DataParallel(int32_t num_ranks) { return {.dp = num_ranks, .moe_ep = num_ranks}; }

// Where a rank stands along each kind of parallelism; see Layout.
struct Coordinates {
  int32_t tp = 0;
  int32_t dp = 0;
  int32_t cp = 0;
  int32_t pp = 0;
  int32_t moe_tp = 0;
  int32_t moe_ep = 0;
  bool operator==(const Coordinates&) const = default;
};

// Errors: kInvalid naming the sizes when one is below 1 or the experts are not on all ranks of a
// stage.
void ValidateLayout(const Layout& layout);

// world_rank in [0, layout.world()). Neighbours share tp first, then dp, cp, pp; of the experts
// they share moe_ep first.
Coordinates CoordinatesOf(const Layout& layout, int32_t world_rank);

// World ranks that share everything but the moe_ep coordinate with `world_rank`, in order of
// moe_ep.
std::vector<int32_t> ExpertGroup(const Layout& layout, int32_t world_rank);

// World ranks that share everything but the moe_tp coordinate with `world_rank`: the first of them,
// how many they are, and how far they are apart.
struct RankStride {
  int32_t first = 0;
  int32_t count = 1;
  int32_t stride = 1;
  bool operator==(const RankStride&) const = default;
};
RankStride ExpertTensorGroup(const Layout& layout, int32_t world_rank);
// The same of everything but the cp coordinate.
RankStride ContextGroup(const Layout& layout, int32_t world_rank);

// Half-open part of [0, size) that piece `index` of `count` owns; the first size % count pieces are
// one longer.
struct Shard {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const Shard&) const = default;
};
Shard ShardOf(int64_t size, int64_t count, int64_t index);

// The layers of one of `num_stages` stages: `sizes` [num_stages] says how many each has; empty:
// ShardOf. Errors: kInvalid when sizes are not as many, one is below 1, or their sum is another
// number, naming them; also when there are fewer layers than stages.
Shard StageLayers(int64_t num_layers, int32_t num_stages, std::span<const int32_t> sizes,
                  int32_t stage);

// ShardOf in whole steps of `unit`, of which the last may be part of one, where there are as many
// as pieces; else ShardOf.
Shard ShardInSteps(int64_t size, int64_t unit, int64_t count, int64_t index);

// How the ranks of a group divide `size` columns: piece r is [ends[r - 1], ends[r]), in steps of
// the 16 that kernels compute at once; in activations they fill half a cache line or a whole.
std::vector<int64_t> ColumnEnds(int64_t size, int32_t num_ranks);

}  // namespace wideload::parallel
