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

  const eplb::Placement& placement() const { return placement_; }

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
using LayerSplits = std::vector<std::unique_ptr<LayerSplit>>;

void TakeOver(const PlacementChange& change, ReplaySplit split, LayerSplits& splits,
              ReplayedIteration& out) {
  out.layer_fetched_slots.assign(splits.size(), 0);
  for (const LayerChange& layer : change.layers) {
    const auto l = static_cast<size_t>(layer.moe_layer);
    const int32_t fetched = eplb::CountFetchedSlots(splits[l]->placement(), layer.placement);
    out.layer_fetched_slots[l] = fetched;
    out.fetched_slots += fetched;
    splits[l] = std::make_unique<LayerSplit>(layer.placement, split);
  }
}

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
  LayerSplits splits;
  for (const eplb::Placement& placement : balancer.placements())
    splits.push_back(std::make_unique<LayerSplit>(placement, split));
  Replayed replayed;
  for (size_t i = 0; i * num_layers * experts < counts.size(); ++i) {
    const auto iteration = static_cast<int64_t>(i);
    ReplayedIteration& out = replayed.iterations.emplace_back();
    if (const auto change = balancer.ChangeFor(iteration)) TakeOver(*change, split, splits, out);
    const auto routed = counts.subspan(i * num_layers * experts, num_layers * experts);
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
    balancer.Observe(iteration, routed, false);
  }
  replayed.figures = balancer.figures();
  replayed.last = balancer.placements();
  return replayed;
}

}  // namespace wideload::rebalance
