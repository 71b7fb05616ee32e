#include "parallel/mapping.h"

#include <algorithm>

#include "base/error.h"

namespace wideload::parallel {

void ValidateLayout(const Layout& layout) {
  if (std::min({layout.tp, layout.pp, layout.cp, layout.moe_tp, layout.moe_ep}) < 1)
    Throw(ErrorKind::kInvalid,
          "parallel sizes are tp {}, pp {}, cp {}, moe_tp {}, moe_ep {}; each must be at least 1",
          layout.tp, layout.pp, layout.cp, layout.moe_tp, layout.moe_ep);
  if (layout.tp != layout.moe_tp * layout.moe_ep)
    Throw(ErrorKind::kInvalid,
          "tensor_parallel_size is {}; it must be moe_tensor_parallel_size {} x "
          "moe_expert_parallel_size {}",
          layout.tp, layout.moe_tp, layout.moe_ep);
}

Coordinates CoordinatesOf(const Layout& layout, int32_t world_rank) {
  WIDELOAD_CHECK(world_rank >= 0 && world_rank < layout.world(), "world rank {} of {}", world_rank,
                 layout.world());
  Coordinates c;
  c.tp = world_rank % layout.tp;
  c.cp = world_rank % (layout.tp * layout.cp) / layout.tp;
  c.pp = world_rank / (layout.tp * layout.cp);
  c.moe_ep = c.tp % layout.moe_ep;
  c.moe_tp = c.tp / layout.moe_ep;
  return c;
}

std::vector<int32_t> ExpertGroup(const Layout& layout, int32_t world_rank) {
  const int32_t first = world_rank - CoordinatesOf(layout, world_rank).moe_ep;
  std::vector<int32_t> group;
  for (int32_t i = 0; i < layout.moe_ep; ++i) group.push_back(first + i);
  return group;
}

Shard ShardOf(int64_t size, int64_t count, int64_t index) {
  WIDELOAD_CHECK(count >= 1 && index >= 0 && index < count, "piece {} of {}", index, count);
  const int64_t base = size / count;
  const int64_t longer = size % count;
  const int64_t begin = index * base + std::min(index, longer);
  return {begin, begin + base + (index < longer ? 1 : 0)};
}

}  // namespace wideload::parallel
