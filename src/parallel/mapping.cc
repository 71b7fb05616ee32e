#include "parallel/mapping.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace wideload::parallel {

void ValidateLayout(const Layout& layout) {
  const int32_t least =
      std::min({layout.tp, layout.dp, layout.cp, layout.pp, layout.moe_tp, layout.moe_ep});
  if (least < 1)
    Throw(ErrorKind::kInvalid,
          "parallel sizes are tp {}, dp {}, cp {}, pp {}, moe_tp {}, moe_ep {}; each must be at "
          "least 1",
          layout.tp, layout.dp, layout.cp, layout.pp, layout.moe_tp, layout.moe_ep);
  if (layout.stage() != layout.moe_tp * layout.moe_ep)
    Throw(ErrorKind::kInvalid,
          "moe_tensor_parallel_size is {} and moe_expert_parallel_size {}; their product must be "
          "that of tp {}, dp {} and cp {}",
          layout.moe_tp, layout.moe_ep, layout.tp, layout.dp, layout.cp);
}

Coordinates CoordinatesOf(const Layout& layout, int32_t world_rank) {
  WIDELOAD_CHECK(world_rank >= 0 && world_rank < layout.world(), "world rank {} of {}", world_rank,
                 layout.world());
  const int32_t in_stage = world_rank % layout.stage();
  return {.tp = world_rank % layout.tp,
          .dp = world_rank / layout.tp % layout.dp,
          .cp = in_stage / (layout.tp * layout.dp),
          .pp = world_rank / layout.stage(),
          .moe_tp = in_stage / layout.moe_ep,
          .moe_ep = in_stage % layout.moe_ep};
}

std::vector<int32_t> ExpertGroup(const Layout& layout, int32_t world_rank) {
  const int32_t first = world_rank - CoordinatesOf(layout, world_rank).moe_ep;
  std::vector<int32_t> group;
  for (int32_t i = 0; i < layout.moe_ep; ++i) group.push_back(first + i);
  return group;
}

RankStride ExpertTensorGroup(const Layout& layout, int32_t world_rank) {
  const int32_t place = CoordinatesOf(layout, world_rank).moe_tp;
  return {
      .first = world_rank - place * layout.moe_ep, .count = layout.moe_tp, .stride = layout.moe_ep};
}

RankStride ContextGroup(const Layout& layout, int32_t world_rank) {
  const int32_t stride = layout.tp * layout.dp;
  const int32_t place = CoordinatesOf(layout, world_rank).cp;
  return {.first = world_rank - place * stride, .count = layout.cp, .stride = stride};
}

Shard ShardOf(int64_t size, int64_t count, int64_t index) {
  WIDELOAD_CHECK(count >= 1 && index >= 0 && index < count, "piece {} of {}", index, count);
  const int64_t base = size / count;
  const int64_t longer = size % count;
  const int64_t begin = index * base + std::min(index, longer);
  return {begin, begin + base + (index < longer ? 1 : 0)};
}

Shard StageLayers(int64_t num_layers, int32_t num_stages, std::span<const int32_t> sizes,
                  int32_t stage) {
  if (num_stages > num_layers)
    Throw(ErrorKind::kInvalid, "--pp is {}; the model has {} layers, and each stage needs one",
          num_stages, num_layers);
  if (sizes.empty()) return ShardOf(num_layers, num_stages, stage);
  const int64_t sum = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
  if (std::ssize(sizes) != num_stages || std::ranges::min(sizes) < 1 || sum != num_layers)
    Throw(ErrorKind::kInvalid,
          "--pp-partition is {}; it must be {} numbers (--pp), each at least 1, whose sum is {}, "
          "the layers of the model",
          fmt::join(sizes, ","), num_stages, num_layers);
  const auto before = sizes.first(static_cast<size_t>(stage));
  const int64_t begin = std::accumulate(before.begin(), before.end(), int64_t{0});
  return {begin, begin + sizes[static_cast<size_t>(stage)]};
}

Shard ShardInSteps(int64_t size, int64_t unit, int64_t count, int64_t index) {
  const int64_t steps = (size + unit - 1) / unit;
  if (steps < count) return ShardOf(size, count, index);
  const Shard shard = ShardOf(steps, count, index);
  return {shard.begin * unit, std::min(size, shard.end * unit)};
}

std::vector<int64_t> ColumnEnds(int64_t size, int32_t num_ranks) {
  constexpr int64_t kStep = 16;
  std::vector<int64_t> ends;
  for (int32_t r = 0; r < num_ranks; ++r)
    ends.push_back(ShardInSteps(size, kStep, num_ranks, r).end);
  return ends;
}

}  // namespace wideload::parallel
