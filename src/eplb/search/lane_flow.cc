#include "eplb/search/lane_flow.h"

#include <algorithm>
#include <numeric>

namespace wideload::eplb {
namespace {

// Sweeps over all experts between two looks at the busiest ranks.
constexpr int32_t kSweepsPerLook = 4;
constexpr int32_t kMaxSweeps = 32;
constexpr int32_t kFirstSweeps = 128;
// Levelling stops when it comes forward by less than this share of what is left,
constexpr double kLeastProgress = 0.05;
// or when no more is left than this, a block's mean.
constexpr double kCloseEnough = 1e-5;
// or when going on like this for so many looks more would not get it below the limit.
constexpr double kLooksOfHope = 3;

}  // namespace

LaneFlow::LaneFlow(const ScenarioLanes& lanes, const std::vector<double>& rank_speed)
    : lanes_(lanes),
      kernels_(BestLaneKernels()),
      num_ranks_(static_cast<int32_t>(rank_speed.size())),
      levels_(Index(lanes.num_lanes())),
      tried_levels_(levels_),
      block_order_(Index(lanes.num_blocks())),
      order_(rank_speed.size()),
      position_(rank_speed.size()),
      confined_(rank_speed.size()) {
  std::iota(block_order_.begin(), block_order_.end(), 0);
  for (const double speed : rank_speed) {
    speed_.push_back(static_cast<float>(speed));
    inverse_speed_.push_back(speed > 0 ? static_cast<float>(1 / speed) : 0.0F);
  }
}

void LaneFlow::FindHosts(const Placement& placement, Hosts& hosts) {
  const size_t experts = Index(placement.num_experts);
  hosts.all_begin.assign(experts + 1, 0);
  for (const ExpertId expert : placement.slot_expert) ++hosts.all_begin[Index(expert.value) + 1];
  std::partial_sum(hosts.all_begin.begin(), hosts.all_begin.end(), hosts.all_begin.begin());
  hosts.all_end.assign(hosts.all_begin.begin(), hosts.all_begin.end() - 1);
  hosts.all_slot.resize(Index(num_slots_));
  const auto rank_of = [this](int32_t slot) { return slot / slots_per_rank_; };
  for (int32_t s = 0; s < num_slots_; ++s) {
    if (speed_[Index(rank_of(s))] <= 0) continue;
    const size_t expert = Index(placement.slot_expert[Index(s)].value);
    int32_t& end = hosts.all_end[expert];
    const bool again =
        end > hosts.all_begin[expert] && rank_of(hosts.all_slot[Index(end - 1)]) == rank_of(s);
    if (!again) hosts.all_slot[Index(end++)] = s;
  }
  hosts.begin.assign(1, 0);
  for (std::vector<int32_t>* list : {&hosts.slot, &hosts.rank}) list->clear();
  for (std::vector<float>* list : {&hosts.speed, &hosts.inverse_speed, &hosts.pair_factor})
    list->clear();
  for (size_t e = 0; e < experts; ++e)
    if (hosts.all_end[e] - hosts.all_begin[e] > 1)
      AddShared(hosts.all_begin[e], hosts.all_end[e], hosts);
}

// Lists all_slot [begin, end) as the hosts of one more expert with several.
void LaneFlow::AddShared(int32_t begin, int32_t end, Hosts& hosts) const {
  float inverse_sum = 0;
  for (int32_t i = begin; i < end; ++i) {
    const int32_t slot = hosts.all_slot[Index(i)];
    const int32_t rank = slot / slots_per_rank_;
    hosts.slot.push_back(slot * kLanes);
    hosts.rank.push_back(rank * kLanes);
    hosts.speed.push_back(speed_[Index(rank)]);
    hosts.inverse_speed.push_back(inverse_speed_[Index(rank)]);
    inverse_sum += inverse_speed_[Index(rank)];
  }
  hosts.begin.push_back(static_cast<int32_t>(hosts.slot.size()));
  hosts.pair_factor.push_back(end - begin == 2 ? 1 / inverse_sum : 0.0F);
}

LaneExperts LaneFlow::Experts(const Hosts& hosts) const {
  return {.begin = hosts.begin.data(),
          .slot = hosts.slot.data(),
          .rank = hosts.rank.data(),
          .speed = hosts.speed.data(),
          .inverse_speed = hosts.inverse_speed.data(),
          .pair_factor = hosts.pair_factor.data(),
          .num_experts = static_cast<int32_t>(hosts.pair_factor.size())};
}

// Levels a block of the tried split out. Returns how much more its scenarios add to the objective
// than with `lower`; stops early when that will not come down to `enough`.
double LaneFlow::LevelBlock(int32_t block, std::span<const float> lower, double enough) {
  const LaneExperts experts = Experts(tried_.hosts);
  float* heights = Heights(tried_, block);
  float* tokens = Tokens(tried_, block);
  float* highest = tried_levels_.data() + Index(block) * Index(kLanes);
  const float* block_lower = lower.data() + Index(block) * Index(kLanes);
  const LaneCosts costs = lanes_.CostsFrom(block * kLanes);
  const auto hosts = static_cast<int64_t>(tried_.hosts.slot.size());
  double before = 0;
  for (int32_t sweep = 0;; sweep += kSweepsPerLook) {
    kernels_.highest(heights, num_ranks_, highest);
    const auto excess = static_cast<double>(kernels_.cost_above(highest, block_lower, costs));
    const double progress = before - excess;
    const bool slow = sweep > 0 && progress < kLeastProgress * before;
    const bool hopeless = sweep > 0 && excess - kLooksOfHope * progress > enough;
    if (excess <= kCloseEnough / lanes_.num_blocks() || slow || hopeless || sweep >= kMaxSweeps)
      return excess;
    before = excess;
    for (int32_t i = 0; i < kSweepsPerLook; ++i) kernels_.level(experts, heights, tokens);
    work_ += kSweepsPerLook * hosts * 5 + int64_t{2} * num_ranks_;
  }
}

void LaneFlow::Reset(const Placement& placement) {
  num_slots_ = placement.num_slots();
  slots_per_rank_ = placement.slots_per_rank();
  FindHosts(placement, kept_.hosts);
  const size_t blocks = Index(lanes_.num_blocks()) * Index(kLanes);
  kept_.heights.assign(blocks * Index(num_ranks_), 0.0F);
  kept_.tokens.assign(blocks * Index(num_slots_), 0.0F);
  tried_ = kept_;
  const LaneExperts experts = Experts(kept_.hosts);
  for (int32_t block = 0; block < lanes_.num_blocks(); ++block) {
    float* heights = Heights(kept_, block);
    float* tokens = Tokens(kept_, block);
    for (int32_t e = 0; e < placement.num_experts; ++e) {
      const int32_t begin = kept_.hosts.all_begin[Index(e)];
      const int32_t end = kept_.hosts.all_end[Index(e)];
      const float* load = lanes_.Loads(e) + Index(block) * Index(kLanes);
      for (int32_t i = begin; i < end; ++i) {
        const int32_t slot = kept_.hosts.all_slot[Index(i)];
        const int32_t rank = slot / slots_per_rank_;
        const float share = 1.0F / static_cast<float>(end - begin);
        kernels_.add_scaled(load, share, kLanes, tokens + Index(slot) * Index(kLanes), kLanes);
        kernels_.add_scaled(load, share * inverse_speed_[Index(rank)], kLanes,
                            heights + Index(rank) * Index(kLanes), kLanes);
      }
    }
    for (int32_t i = 0; i < kFirstSweeps; ++i) kernels_.level(experts, heights, tokens);
    work_ += kFirstSweeps * static_cast<int64_t>(kept_.hosts.slot.size()) * 5;
    kernels_.highest(heights, num_ranks_, levels_.data() + Index(block) * Index(kLanes));
  }
}

// `share` of the kept split's tokens of slot `from` go to slot `to`, and from its rank to that.
void LaneFlow::MoveTokens(int32_t block, int32_t from, int32_t to, float share) {
  const float* tokens = Tokens(kept_, block) + Index(from) * Index(kLanes);
  float* heights = Heights(tried_, block);
  const int32_t from_rank = from / slots_per_rank_;
  const int32_t to_rank = to / slots_per_rank_;
  kernels_.add_scaled(tokens, -share * inverse_speed_[Index(from_rank)], kLanes,
                      heights + Index(from_rank) * Index(kLanes), kLanes);
  kernels_.add_scaled(tokens, share * inverse_speed_[Index(to_rank)], kLanes,
                      heights + Index(to_rank) * Index(kLanes), kLanes);
  kernels_.add_scaled(tokens, share, kLanes, Tokens(tried_, block) + Index(to) * Index(kLanes),
                      kLanes);
}

// Tokens move with their expert: to where it goes, or to its other slots.
void LaneFlow::ApplyChange(const SlotChange& change, int32_t block) {
  for (int32_t i = 0; i < change.num_slots; ++i)
    std::fill_n(Tokens(tried_, block) + Index(change.slot[i]) * Index(kLanes), kLanes, 0.0F);
  if (change.num_slots == 2) {
    MoveTokens(block, change.slot[0], change.slot[1], 1);
    MoveTokens(block, change.slot[1], change.slot[0], 1);
    return;
  }
  const Hosts& hosts = tried_.hosts;
  const int32_t begin = hosts.all_begin[Index(change.old_expert[0])];
  const int32_t end = hosts.all_end[Index(change.old_expert[0])];
  for (int32_t i = begin; i < end; ++i)
    MoveTokens(block, change.slot[0], hosts.all_slot[Index(i)],
               1.0F / static_cast<float>(end - begin));
}

void LaneFlow::FindWorst(int32_t block, std::span<const float> lower) {
  const int32_t begin = block * kLanes;
  const int32_t end = std::min(begin + kLanes, lanes_.num_scenarios());
  const auto above = [&](int32_t k) { return tried_levels_[Index(k)] - lower[Index(k)]; };
  worst_scenario_ = begin;
  for (int32_t k = begin; k < end; ++k)
    if (above(k) > above(worst_scenario_)) worst_scenario_ = k;
}

double LaneFlow::Try(const Placement& after, const SlotChange& change, std::span<const float> lower,
                     double limit) {
  FindHosts(after, tried_.hosts);
  work_ += int64_t{num_slots_} * 8;
  double sum = 0;
  for (int32_t k = 0; k < lanes_.num_scenarios(); ++k) sum += lanes_.CostOf(k, lower[Index(k)]);
  for (size_t i = 0; i < block_order_.size(); ++i) {
    const int32_t block = block_order_[i];
    std::copy_n(Heights(kept_, block), Index(num_ranks_) * Index(kLanes), Heights(tried_, block));
    std::copy_n(Tokens(kept_, block), Index(num_slots_) * Index(kLanes), Tokens(tried_, block));
    ApplyChange(change, block);
    work_ += num_slots_ + num_ranks_;
    sum += LevelBlock(block, lower, limit - sum);
    if (sum <= limit) continue;
    FindWorst(block, lower);
    std::swap(block_order_[0], block_order_[i]);
    return sum;
  }
  return sum;
}

void LaneFlow::Keep() {
  std::swap(kept_, tried_);
  levels_.swap(tried_levels_);
}

double LaneFlow::FindCut(int32_t scenario, bool tried, RankMask& ranks) {
  Split& split = tried ? tried_ : kept_;
  const int32_t block = scenario / kLanes;
  const int32_t lane = scenario % kLanes;
  const float* heights = Heights(split, block) + lane;
  std::iota(order_.begin(), order_.end(), 0);
  std::stable_sort(order_.begin(), order_.end(), [&](int32_t a, int32_t b) {
    return heights[Index(a) * Index(kLanes)] > heights[Index(b) * Index(kLanes)];
  });
  for (int32_t i = 0; i < num_ranks_; ++i) position_[Index(order_[Index(i)])] = i;
  std::fill(confined_.begin(), confined_.end(), 0.0);
  const Hosts& hosts = split.hosts;
  for (int32_t e = 0; e < lanes_.num_experts(); ++e) {
    int32_t last = -1;
    for (int32_t i = hosts.all_begin[Index(e)]; i < hosts.all_end[Index(e)]; ++i)
      last = std::max(last, position_[Index(hosts.all_slot[Index(i)] / slots_per_rank_)]);
    if (last >= 0) confined_[Index(last)] += static_cast<double>(lanes_.Loads(e)[scenario]);
  }
  double load = 0;
  double speed = 0;
  double highest = 0;
  int32_t best = 0;
  for (int32_t i = 0; i < num_ranks_; ++i) {
    load += confined_[Index(i)];
    speed += static_cast<double>(speed_[Index(order_[Index(i)])]);
    if (speed <= 0 || load / speed <= highest) continue;
    highest = load / speed;
    best = i;
  }
  std::fill(ranks.begin(), ranks.end(), 0);
  for (int32_t i = 0; i <= best; ++i) {
    const size_t rank = Index(order_[Index(i)]);
    ranks[rank / 64] |= uint64_t{1} << (rank % 64);
  }
  work_ += int64_t{num_slots_} * 10 + int64_t{num_ranks_} * 20;
  return highest;
}

}  // namespace wideload::eplb
