// World rank -> coordinates (tp, pp, cp, moe_tp, moe_ep), and which part of a dimension a rank
// owns. Pure. Source: the rank arithmetic that TensorRT-LLM documents for tensor_parallel_size,
// moe_tensor_parallel_size and moe_expert_parallel_size.
#pragma once

#include <cstdint>
#include <vector>

namespace wideload::parallel {

// Sizes of a layout. world = tp * pp * cp and tp = moe_tp * moe_ep. With attention data parallelism
// `tp` counts the ranks that own requests.
struct Layout {
  int32_t tp = 1;
  int32_t pp = 1;
  int32_t cp = 1;
  int32_t moe_tp = 1;
  int32_t moe_ep = 1;

  int32_t world() const { return tp * pp * cp; }
};

// Where a rank stands along each kind of parallelism; see Layout.
struct Coordinates {
  int32_t tp = 0;
  int32_t pp = 0;
  int32_t cp = 0;
  int32_t moe_tp = 0;
  int32_t moe_ep = 0;
  bool operator==(const Coordinates&) const = default;
};

// Errors: kInvalid naming the flags when a size is below 1 or tp is not moe_tp * moe_ep.
void ValidateLayout(const Layout& layout);

// world_rank in [0, layout.world()).
Coordinates CoordinatesOf(const Layout& layout, int32_t world_rank);

// World ranks that share everything but the moe_ep coordinate with `world_rank`, in order of
// moe_ep.
std::vector<int32_t> ExpertGroup(const Layout& layout, int32_t world_rank);

// Half-open part of [0, size) that piece `index` of `count` owns; the first size % count pieces are
// one longer.
struct Shard {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const Shard&) const = default;
};
Shard ShardOf(int64_t size, int64_t count, int64_t index);

}  // namespace wideload::parallel
