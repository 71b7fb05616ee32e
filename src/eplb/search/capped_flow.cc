#include "eplb/search/capped_flow.h"

#include <algorithm>
#include <utility>

#include "eplb/placement/index.h"

namespace wideload::eplb {
namespace {

// Loads are scaled to a mean of 1 a rank; less than this is rounding.
constexpr double kTolerance = 1e-9;

}  // namespace

void HostSlots::Find(const Placement& placement, std::span<const double> rank_speed) {
  const int32_t slots = placement.num_slots();
  const int32_t per_rank = placement.slots_per_rank();
  const auto for_hosts = [&](const auto& take) {
    last_rank_.assign(Index(placement.num_experts), -1);
    for (int32_t s = 0; s < slots; ++s) {
      const int32_t rank = s / per_rank;
      const size_t expert = Index(placement.slot_expert[Index(s)].value);
      if (rank_speed[Index(rank)] <= 0 || last_rank_[expert] == rank) continue;
      last_rank_[expert] = rank;
      take(expert, s);
    }
  };
  begin_.assign(Index(placement.num_experts) + 2, 0);
  for_hosts([this](size_t expert, int32_t) { ++begin_[expert + 2]; });
  for (size_t e = 2; e < begin_.size(); ++e) begin_[e] += begin_[e - 1];
  slot_.resize(Index(begin_.back()));
  // begin_[e + 1] runs from the begin of expert e to its end
  for_hosts([this](size_t expert, int32_t s) { slot_[Index(begin_[expert + 1]++)] = s; });
}

std::span<const int32_t> HostSlots::Of(int32_t expert) const {
  const int32_t begin = begin_[Index(expert)];
  return std::span(slot_).subspan(Index(begin), Index(begin_[Index(expert) + 1] - begin));
}

CappedFlow::CappedFlow(std::vector<double> capacity)
    : capacity_(std::move(capacity)), reached_(capacity_.size()), step_(capacity_.size()) {
  queue_.reserve(capacity_.size());
}

double CappedFlow::Fit(const Placement& placement, const HostSlots& hosts, BatchSplit& split) {
  for (int32_t rank = FindRoom(placement, hosts, split); rank >= 0;
       rank = FindRoom(placement, hosts, split))
    Push(placement, rank, split);
  double above = 0;
  for (size_t r = 0; r < capacity_.size(); ++r)
    above += std::max(0.0, split.rank_load[r] - capacity_[r]);
  return above;
}

// The nearest rank with room that ranks above capacity can hand tokens to; -1: there is none.
int32_t CappedFlow::FindRoom(const Placement& placement, const HostSlots& hosts,
                             const BatchSplit& split) {
  std::fill(reached_.begin(), reached_.end(), uint8_t{0});
  queue_.clear();
  const auto ranks = static_cast<int32_t>(capacity_.size());
  for (int32_t r = 0; r < ranks; ++r) {
    if (Room(split, r) >= -kTolerance) continue;
    reached_[Index(r)] = 1;
    step_[Index(r)] = {};
    queue_.push_back(r);
  }
  const int32_t per_rank = placement.slots_per_rank();
  for (size_t i = 0; i < queue_.size(); ++i) {
    for (int32_t s = queue_[i] * per_rank; s < (queue_[i] + 1) * per_rank; ++s) {
      if (split.tokens[Index(s)] <= kTolerance) continue;
      for (const int32_t t : hosts.Of(placement.slot_expert[Index(s)].value)) {
        const int32_t rank = t / per_rank;
        if (reached_[Index(rank)] != 0) continue;
        reached_[Index(rank)] = 1;
        step_[Index(rank)] = {s, t};
        if (Room(split, rank) > kTolerance) return rank;
        queue_.push_back(rank);
      }
    }
  }
  return -1;
}

// As many tokens as fit along the path that FindRoom found.
void CappedFlow::Push(const Placement& placement, int32_t rank, BatchSplit& split) {
  const int32_t per_rank = placement.slots_per_rank();
  double amount = Room(split, rank);
  int32_t first = rank;
  for (; step_[Index(first)].from_slot >= 0; first = step_[Index(first)].from_slot / per_rank)
    amount = std::min(amount, split.tokens[Index(step_[Index(first)].from_slot)]);
  amount = std::min(amount, -Room(split, first));
  split.rank_load[Index(rank)] += amount;
  split.rank_load[Index(first)] -= amount;
  for (int32_t r = rank; r != first; r = step_[Index(r)].from_slot / per_rank) {
    split.tokens[Index(step_[Index(r)].from_slot)] -= amount;
    split.tokens[Index(step_[Index(r)].to_slot)] += amount;
  }
}

}  // namespace wideload::eplb
