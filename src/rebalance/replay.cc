#include "rebalance/replay.h"

#include <algorithm>
#include <memory>
#include <numeric>

#include "base/error.h"
#include "eplb/placement/even_split.h"
#include "eplb/split/integer_split.h"

namespace wideload::rebalance {
namespace {

// A layer's present placement, and how it splits counts.
class LayerSplit {
 public:
  LayerSplit(const eplb::Placement& placement, ReplaySplit split)
      : placement_(placement), split_(split), optimal_(placement) {}

  double Imbalance(std::span<const int32_t> counts) {
    if (split_ == ReplaySplit::kEven) {
      const std::vector<double> loads(counts.begin(), counts.end());
      return eplb::EvenSplitImbalance(placement_, loads);
    }
    optimal_.Solve(std::vector<int64_t>(counts.begin(), counts.end()));
    const std::span<const int64_t> loads = optimal_.rank_loads();
    return eplb::ImbalanceRatio(std::vector<double>(loads.begin(), loads.end()));
  }

 private:
  eplb::Placement placement_;
  ReplaySplit split_;
  eplb::IntegerSplit optimal_;
};

}  // namespace

double Replayed::MeanImbalance(size_t begin, size_t end) const {
  double sum = 0, tokens = 0;
  for (size_t i = begin; i < end; ++i) {
    const auto weight = static_cast<double>(iterations[i].routed_tokens);
    sum += weight * iterations[i].imbalance;
    tokens += weight;
  }
  return tokens > 0 ? sum / tokens : 0;
}

Replayed Replay(OnlineOptions options, std::vector<eplb::Placement> start,
                std::span<const int32_t> counts, ReplaySplit split) {
  options.is_waiting = true;
  options.splits_evenly = split == ReplaySplit::kEven;
  OnlineBalancer balancer(options, std::move(start));
  const size_t num_layers = balancer.placements().size();
  WIDELOAD_CHECK(num_layers > 0, "{} layers to replay", num_layers);
  const auto experts = static_cast<size_t>(balancer.placements()[0].num_experts);
  if (counts.size() % (num_layers * experts) != 0)
    Throw(ErrorKind::kInvalid, "{} counts are no whole iterations of {} layers with {} experts",
          counts.size(), num_layers, experts);
  std::vector<std::unique_ptr<LayerSplit>> splits;
  for (const eplb::Placement& placement : balancer.placements())
    splits.push_back(std::make_unique<LayerSplit>(placement, split));
  Replayed replayed;
  int64_t fetched = 0;
  for (size_t i = 0; i * num_layers * experts < counts.size(); ++i) {
    const auto iteration = static_cast<int64_t>(i);
    if (const auto change = balancer.ChangeFor(iteration))
      for (const LayerChange& layer : change->layers)
        splits[static_cast<size_t>(layer.moe_layer)] =
            std::make_unique<LayerSplit>(layer.placement, split);
    const auto routed = counts.subspan(i * num_layers * experts, num_layers * experts);
    ReplayedIteration& out = replayed.iterations.emplace_back();
    int32_t with_tokens = 0;
    for (size_t l = 0; l < num_layers; ++l) {
      const auto row = routed.subspan(l * experts, experts);
      const int64_t tokens = std::accumulate(row.begin(), row.end(), int64_t{0});
      if (tokens == 0) continue;
      out.routed_tokens += tokens;
      out.imbalance += splits[l]->Imbalance(row);
      ++with_tokens;
    }
    if (with_tokens > 0) out.imbalance /= with_tokens;
    const int64_t fetched_before = std::exchange(fetched, balancer.figures().fetched_slots);
    out.fetched_slots = static_cast<int32_t>(fetched - fetched_before);
    balancer.Observe(iteration, routed, false);
  }
  replayed.figures = balancer.figures();
  replayed.last = balancer.placements();
  return replayed;
}

}  // namespace wideload::rebalance
