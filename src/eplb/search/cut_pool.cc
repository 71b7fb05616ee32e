#include "eplb/search/cut_pool.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "base/error.h"

namespace wideload::eplb {
namespace {

// Bounds are compared with the limit after every so many cuts.
constexpr int32_t kCutsPerStage = 16;
// BatchLoads are looked at in stages, the first of so many blocks, each further one of as many as
// all before. A change is given up when the first n make the objective worse by more than this
// part of it / sqrt(n), which one in a hundred changes for the better does.
constexpr int32_t kFirstBlocks = 2;
constexpr double kDoubt = 1;
// Cuts are sorted anew after this many changes of the placement.
constexpr int32_t kChangesPerSort = 8;
// A set of ranks this full counts as close to binding.
constexpr float kTightLevel = 0.97F;

}  // namespace

CutPool::CutPool(const ScenarioLanes& lanes, int32_t num_ranks, std::vector<double> rank_speed,
                 int32_t max_cuts)
    : lanes_(lanes),
      kernels_(BestLaneKernels()),
      rank_speed_(std::move(rank_speed)),
      num_words_((num_ranks + 63) / 64),
      max_cuts_(max_cuts),
      masks_(Index(max_cuts) * Index(num_words_)),
      inverse_speed_(Index(max_cuts)),
      levels_(Index(max_cuts) * Index(lanes.num_lanes())),
      last_use_(Index(max_cuts)),
      no_load_(Index(lanes.num_lanes())) {
  for (std::vector<float>& factor : factor_) factor.resize(Index(max_cuts));
  double sum = 0;
  for (int32_t k = 0; k < lanes.num_lanes(); ++k) {
    sum += static_cast<double>(lanes.CostsFrom(0).weights[k]);
    if ((k + 1) % kLanes == 0) weight_until_.push_back(sum);
  }
}

bool CutPool::Inside(const uint64_t* hosts, int32_t cut) const {
  const uint64_t* mask = Mask(cut);
  uint64_t outside = 0;
  for (int32_t w = 0; w < num_words_; ++w) outside |= hosts[w] & ~mask[w];
  return outside == 0;
}

void CutPool::AddLoad(int32_t expert, float factor, int32_t cut) {
  kernels_.add_scaled(lanes_.Loads(expert), factor * inverse_speed_[Index(cut)], lanes_.num_lanes(),
                      Levels(0, cut), BlockStep());
}

void CutPool::FillLevels(int32_t cut, std::span<const uint64_t> hosts) {
  for (int32_t block = 0; block < lanes_.num_blocks(); ++block)
    std::fill_n(Levels(block, cut), kLanes, 0.0F);
  const auto experts = static_cast<int32_t>(hosts.size() / Index(num_words_));
  for (int32_t e = 0; e < experts; ++e) {
    const uint64_t* expert_hosts = hosts.data() + Index(e) * Index(num_words_);
    const bool hosted = std::any_of(expert_hosts, expert_hosts + num_words_,
                                    [](uint64_t word) { return word != 0; });
    if (hosted && Inside(expert_hosts, cut)) AddLoad(e, 1, cut);
  }
  work_ += int64_t{experts} * (3 + 2 * lanes_.num_blocks());
}

void CutPool::Reset(std::span<const uint64_t> hosts) {
  for (int32_t cut = 0; cut < num_cuts_; ++cut) FillLevels(cut, hosts);
}

void CutPool::AddCut(const RankMask& ranks, std::span<const uint64_t> hosts) {
  int32_t oldest = 0;
  for (int32_t cut = 0; cut < num_cuts_; ++cut) {
    if (std::equal(ranks.begin(), ranks.end(), Mask(cut))) {
      last_use_[Index(cut)] = ++clock_;
      return;
    }
    if (last_use_[Index(cut)] < last_use_[Index(oldest)]) oldest = cut;
  }
  const int32_t cut = num_cuts_ < max_cuts_ ? num_cuts_++ : oldest;
  std::copy(ranks.begin(), ranks.end(), masks_.begin() + Index(cut) * Index(num_words_));
  double speed = 0;
  for (size_t r = 0; r < rank_speed_.size(); ++r)
    if (ranks[r / 64] >> (r % 64) & 1) speed += rank_speed_[r];
  WIDELOAD_CHECK(speed > 0, "a cut of {} ranks without speed", rank_speed_.size());
  inverse_speed_[Index(cut)] = static_cast<float>(1 / speed);
  last_use_[Index(cut)] = ++clock_;
  FillLevels(cut, hosts);
}

void CutPool::FindFactors(std::span<const HostChange> changes, int32_t begin, int32_t end) {
  for (size_t c = 0; c < 2; ++c) {
    for (int32_t cut = begin; cut < end; ++cut)
      factor_[c][Index(cut)] =
          c < changes.size()
              ? static_cast<float>(Inside(changes[c].after, cut) - Inside(changes[c].before, cut)) *
                    inverse_speed_[Index(cut)]
              : 0.0F;
  }
  work_ += int64_t{end - begin} * 6;
}

// Raises the blocks' bounds by the cuts [begin, end). Returns what the bounds make these scenarios
// cost at least.
double CutPool::RaiseBounds(std::span<const HostChange> changes, int32_t begin_block,
                            int32_t end_block, int32_t begin, int32_t end,
                            std::span<float> bounds) {
  const int32_t first = begin_block * kLanes;
  const auto loads = [&](size_t i) {
    return (i < changes.size() ? lanes_.Loads(changes[i].expert) : no_load_.data()) + first;
  };
  work_ += int64_t{end - begin} * (end_block - begin_block) * 2;
  const LaneCuts cuts = {.levels = Levels(begin_block, begin),
                         .factor = {factor_[0].data() + begin, factor_[1].data() + begin},
                         .load = {loads(0), loads(1)},
                         .num_cuts = end - begin,
                         .num_lanes = (end_block - begin_block) * kLanes,
                         .block_step = BlockStep()};
  return static_cast<double>(
      kernels_.raise_bounds(cuts, lanes_.CostsFrom(first), bounds.data() + first));
}

double CutPool::Bounds(std::span<const HostChange> changes, double limit,
                       std::span<const double> present, std::span<float> bounds) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const double more = limit - present.back();
  double cost = 0;
  for (int32_t begin = 0, end = kFirstBlocks;; begin = end, end *= 2) {
    end = std::min(end, lanes_.num_blocks());
    std::fill_n(bounds.begin() + int64_t{begin} * kLanes, (end - begin) * kLanes, 1.0F);
    double most = limit;
    if (end < lanes_.num_blocks())
      most = present[Index(end * kLanes - 1)] +
             weight_until_[Index(end - 1)] *
                 (more + kDoubt / std::sqrt(end * kLanes) * present.back());
    double stage = 0;
    for (int32_t cut = 0; cut < num_cuts_; cut += kCutsPerStage) {
      const int32_t last = std::min(num_cuts_, cut + kCutsPerStage);
      if (begin == 0) FindFactors(changes, cut, last);
      stage = RaiseBounds(changes, begin, end, cut, last, bounds);
      if (cost + stage > most) return kInfinity;
    }
    cost += stage;
    if (end == lanes_.num_blocks()) return cost;
  }
}

// Brings the cuts that come closest to binding some scenario to the front, where they end most
// evaluations.
void CutPool::SortByTightness() {
  std::vector<std::pair<float, int32_t>> by_tightness;
  for (int32_t cut = 0; cut < num_cuts_; ++cut) {
    float tightness = 0;
    for (int32_t k = 0; k < lanes_.num_scenarios(); ++k)
      tightness += std::max(0.0F, Levels(k / kLanes, cut)[k % kLanes] - kTightLevel);
    by_tightness.emplace_back(-tightness, cut);
  }
  std::sort(by_tightness.begin(), by_tightness.end());
  std::vector<int32_t> order;
  for (const auto& [tightness, cut] : by_tightness) order.push_back(cut);
  Permute(order);
}

// Brings what is known of cut order[i] to place i.
void CutPool::Permute(std::span<const int32_t> order) {
  const auto gather = [&](auto& values, size_t width) {
    const auto old = values;
    for (size_t to = 0; to < order.size(); ++to)
      std::copy_n(old.begin() + order[to] * static_cast<int64_t>(width), width,
                  values.begin() + static_cast<int64_t>(to * width));
  };
  gather(masks_, Index(num_words_));
  gather(inverse_speed_, 1);
  gather(last_use_, 1);
  std::vector<float> old(order.size() * Index(kLanes));
  for (int32_t block = 0; block < lanes_.num_blocks(); ++block) {
    std::copy_n(Levels(block, 0), old.size(), old.begin());
    for (size_t to = 0; to < order.size(); ++to)
      std::copy_n(old.begin() + int64_t{order[to]} * kLanes, kLanes,
                  Levels(block, static_cast<int32_t>(to)));
  }
}

void CutPool::Apply(std::span<const HostChange> changes) {
  for (const HostChange& change : changes) {
    for (int32_t cut = 0; cut < num_cuts_; ++cut) {
      const bool before = Inside(change.before, cut);
      const bool after = Inside(change.after, cut);
      if (before != after) AddLoad(change.expert, after ? 1.0F : -1.0F, cut);
    }
  }
  work_ += int64_t{num_cuts_} * (6 + 2 * lanes_.num_blocks());
  if (++unsorted_ < kChangesPerSort) return;
  unsorted_ = 0;
  SortByTightness();
}

}  // namespace wideload::eplb
