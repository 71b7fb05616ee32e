#include "statistics/routing_figures.h"

#include <algorithm>

namespace wideload::statistics {
namespace {

// Adds up one layer, token by token.
class CrossingCounter {
 public:
  CrossingCounter(const eplb::Placement& placement, int32_t num_nodes, int32_t num_experts)
      : placement_(placement),
        table_(eplb::MakeRoutingTable(placement)),
        ranks_per_node_(placement.num_ranks / num_nodes),
        num_experts_(static_cast<size_t>(num_experts)),
        turn_(num_experts_, 0),
        loads_(num_experts_, 0),
        together_(num_experts_ * num_experts_, 0) {}

  void Token(std::span<const uint16_t> experts, int32_t source) {
    std::vector<int32_t> ranks;
    for (const uint16_t expert : experts) ranks.push_back(RankFor(expert, source));
    for (size_t a = 0; a < experts.size(); ++a) {
      loads_[experts[a]] += 1;
      for (size_t b = a + 1; b < experts.size(); ++b) {
        const auto [low, high] = std::minmax(experts[a], experts[b]);
        ++together_[low * num_experts_ + high];
        pairs_ += 1;
        same_rank_ += ranks[a] == ranks[b] ? 1 : 0;
      }
    }
    std::sort(ranks.begin(), ranks.end());
    ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
    for (const int32_t rank : ranks) {
      copies_ += 1;
      off_rank_ += rank != source ? 1 : 0;
      off_node_ += rank / ranks_per_node_ != source / ranks_per_node_ ? 1 : 0;
    }
    tokens_ += 1;
  }

  CrossingFigures Finish(size_t num_pairs) const {
    CrossingFigures figures{.ranks_per_token = tokens_ > 0 ? copies_ / tokens_ : 0,
                            .rows_off_rank = copies_ > 0 ? off_rank_ / copies_ : 0,
                            .rows_off_node = copies_ > 0 ? off_node_ / copies_ : 0,
                            .pairs_on_one_rank = pairs_ > 0 ? same_rank_ / pairs_ : 0};
    constexpr double kLift = 2;
    for (size_t a = 0; a < num_experts_; ++a)
      for (size_t b = a + 1; b < num_experts_; ++b) {
        const auto tokens = together_[a * num_experts_ + b];
        const double expected = loads_[a] * loads_[b] / tokens_;
        if (tokens > 0 && static_cast<double>(tokens) >= kLift * expected)
          figures.pairs.push_back({static_cast<int32_t>(a), static_cast<int32_t>(b), tokens,
                                   static_cast<double>(tokens) / expected});
      }
    std::stable_sort(figures.pairs.begin(), figures.pairs.end(),
                     [](const ExpertPair& a, const ExpertPair& b) { return a.tokens > b.tokens; });
    if (figures.pairs.size() > num_pairs) figures.pairs.resize(num_pairs);
    return figures;
  }

 private:
  int32_t RankFor(uint16_t expert, int32_t source) {
    const std::span<const SlotId> slots = table_.SlotsOf(ExpertId(expert));
    for (const SlotId slot : slots)
      if (placement_.RankOf(slot).value == source) return source;
    return placement_.RankOf(slots[turn_[expert]++ % slots.size()]).value;
  }

  const eplb::Placement& placement_;
  eplb::RoutingTable table_;
  int32_t ranks_per_node_;
  size_t num_experts_;
  std::vector<size_t> turn_;
  std::vector<double> loads_;
  std::vector<int64_t> together_;  // [experts, experts], lower id first
  double tokens_ = 0, copies_ = 0, off_rank_ = 0, off_node_ = 0, pairs_ = 0, same_rank_ = 0;
};

}  // namespace

CrossingFigures CrossingOf(const eplb::RoutingTrace& routing, int32_t layer,
                           const eplb::Placement& placement, int32_t num_nodes, size_t num_pairs) {
  CrossingCounter counter(placement, num_nodes, routing.num_experts);
  for (const eplb::RoutingTask& task : routing.tasks) {
    const int64_t tokens = routing.NumTokens(task);
    for (int64_t t = 0; t < tokens; ++t)
      counter.Token({routing.Ids(task, t, layer), static_cast<size_t>(routing.top_k)},
                    static_cast<int32_t>(t * placement.num_ranks / tokens));
  }
  return counter.Finish(num_pairs);
}

}  // namespace wideload::statistics
