#include "eplb/cut_pool.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/error.h"

namespace wideload::eplb {
namespace {

// Bounds are compared with the limit after every so many cuts.
constexpr int32_t kCutsPerStage = 16;
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
      rows_(Index(max_cuts) * Index(lanes.num_lanes())),
      last_use_(Index(max_cuts)),
      no_load_(Index(lanes.num_lanes())) {
  for (std::vector<float>& sign : sign_) sign.resize(Index(max_cuts));
}

bool CutPool::Inside(const uint64_t* hosts, int32_t cut) const {
  const uint64_t* mask = Mask(cut);
  uint64_t outside = 0;
  for (int32_t w = 0; w < num_words_; ++w) outside |= hosts[w] & ~mask[w];
  return outside == 0;
}

void CutPool::FillRow(int32_t cut, std::span<const uint64_t> hosts) {
  float* row = Row(cut);
  std::fill_n(row, lanes_.num_lanes(), 0.0F);
  const auto experts = static_cast<int32_t>(hosts.size() / Index(num_words_));
  for (int32_t e = 0; e < experts; ++e) {
    const uint64_t* expert_hosts = hosts.data() + Index(e) * Index(num_words_);
    const bool hosted = std::any_of(expert_hosts, expert_hosts + num_words_,
                                    [](uint64_t word) { return word != 0; });
    if (!hosted || !Inside(expert_hosts, cut)) continue;
    kernels_.add_scaled(lanes_.Loads(e), 1.0F, lanes_.num_lanes(), row);
  }
  work_ += experts * (3 + 2 * lanes_.num_blocks());
}

void CutPool::Reset(std::span<const uint64_t> hosts) {
  for (int32_t cut = 0; cut < num_cuts_; ++cut) FillRow(cut, hosts);
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
  FillRow(cut, hosts);
}

void CutPool::FindSigns(std::span<const HostChange> changes, int32_t begin, int32_t end) {
  for (size_t c = 0; c < 2; ++c) {
    for (int32_t cut = begin; cut < end; ++cut)
      sign_[c][Index(cut)] = c < changes.size()
                                 ? static_cast<float>(Inside(changes[c].after, cut)) -
                                       static_cast<float>(Inside(changes[c].before, cut))
                                 : 0.0F;
  }
}

// Raises bounds by the cuts [begin, end). Returns what the bounds make the objective at least.
double CutPool::RaiseBounds(std::span<const HostChange> changes, int32_t begin, int32_t end,
                            std::span<float> bounds) {
  FindSigns(changes, begin, end);
  const auto loads = [&](size_t i) {
    return i < changes.size() ? lanes_.Loads(changes[i].expert) : no_load_.data();
  };
  work_ += (end - begin) * (6 + 3 * lanes_.num_blocks());
  const LaneCuts cuts = {.rows = Row(begin),
                         .inverse_speed = inverse_speed_.data() + begin,
                         .sign = {sign_[0].data() + begin, sign_[1].data() + begin},
                         .load = {loads(0), loads(1)},
                         .num_cuts = end - begin,
                         .num_lanes = lanes_.num_lanes()};
  return static_cast<double>(kernels_.raise_bounds(cuts, lanes_.CostsFrom(0), bounds.data()));
}

double CutPool::Bounds(std::span<const HostChange> changes, double limit, std::span<float> bounds) {
  std::fill(bounds.begin(), bounds.end(), 1.0F);
  double cost = 0;
  for (int32_t begin = 0; begin < num_cuts_ && !(cost > limit); begin += kCutsPerStage)
    cost = RaiseBounds(changes, begin, std::min(num_cuts_, begin + kCutsPerStage), bounds);
  return cost;
}

// Brings the cuts that come closest to binding some scenario to the front, where they end most
// evaluations.
void CutPool::SortByTightness() {
  std::vector<std::pair<float, int32_t>> order;
  for (int32_t cut = 0; cut < num_cuts_; ++cut) {
    float level = 0;
    for (int32_t k = 0; k < lanes_.num_scenarios(); ++k)
      level += std::max(0.0F, Row(cut)[k] * inverse_speed_[Index(cut)] - kTightLevel);
    order.emplace_back(-level, cut);
  }
  std::sort(order.begin(), order.end());
  const CutPool old = *this;
  for (int32_t to = 0; to < num_cuts_; ++to) {
    const int32_t from = order[Index(to)].second;
    std::copy_n(old.Mask(from), num_words_, masks_.begin() + int64_t{to} * num_words_);
    std::copy_n(old.rows_.begin() + int64_t{from} * lanes_.num_lanes(), lanes_.num_lanes(),
                Row(to));
    inverse_speed_[Index(to)] = old.inverse_speed_[Index(from)];
    last_use_[Index(to)] = old.last_use_[Index(from)];
  }
}

void CutPool::Apply(std::span<const HostChange> changes) {
  for (const HostChange& change : changes) {
    const float* loads = lanes_.Loads(change.expert);
    for (int32_t cut = 0; cut < num_cuts_; ++cut) {
      const bool before = Inside(change.before, cut);
      const bool after = Inside(change.after, cut);
      if (before == after) continue;
      kernels_.add_scaled(loads, after ? 1.0F : -1.0F, lanes_.num_lanes(), Row(cut));
    }
  }
  work_ += num_cuts_ * (6 + 2 * lanes_.num_blocks());
  if (++unsorted_ < kChangesPerSort) return;
  unsorted_ = 0;
  SortByTightness();
}

}  // namespace wideload::eplb
