#include "eplb/search/cut_pool.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "eplb/placement/placement.h"
#include "eplb/placement/random.h"
#include "eplb/split/water_filling.h"
#include "eplb/testing.h"

namespace wideload::eplb {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kTail = 5;

// The ranks of every expert as masks.
std::vector<uint64_t> HostsOf(const Placement& placement) {
  std::vector<uint64_t> hosts(static_cast<size_t>(placement.num_experts));
  for (int32_t s = 0; s < placement.num_slots(); ++s)
    hosts[static_cast<size_t>(placement.slot_expert[static_cast<size_t>(s)].value)] |=
        uint64_t{1} << placement.RankOf(SlotId(s)).value;
  return hosts;
}

// What scenarios 0..k cost under the exact optimal split.
std::vector<double> ExactCosts(const Placement& placement, const BatchLoads& scenarios,
                               const ScenarioLanes& lanes) {
  WaterFilling split(placement);
  std::vector<double> costs;
  double sum = 0;
  for (int32_t k = 0; k < scenarios.size(); ++k) {
    split.Solve(scenarios.At(k));
    costs.push_back(sum += lanes.CostOf(k, static_cast<float>(1 + split.imbalance())));
  }
  return costs;
}

// A placement of few ranks and the pool of all sets of its ranks, whose bounds are the optimum.
class AllCuts {
 public:
  AllCuts(int32_t num_scenarios, uint64_t seed)
      : random_(seed),
        scenarios_(RandomBatches(kExperts, num_scenarios, seed)),
        placement_(RandomPlacement(kExperts, kSlots, kRanks, seed)),
        lanes_(scenarios_, kRanks, kTail),
        pool_(lanes_, kRanks, std::vector<double>(kRanks, 1.0), (1 << kRanks) - 1),
        hosts_(HostsOf(placement_)),
        present_(ExactCosts(placement_, scenarios_, lanes_)),
        bounds_(static_cast<size_t>(lanes_.num_lanes())) {
    for (uint64_t mask = 1; mask < uint64_t{1} << kRanks; ++mask) pool_.AddCut({mask}, hosts_);
  }

  // Swaps two slots of different ranks; both experts stay somewhere.
  void Swap() {
    size_t a = 0;
    size_t b = 0;
    while (a / kSlotsPerRank == b / kSlotsPerRank) {
      a = static_cast<size_t>(random_.Below(kSlots));
      b = static_cast<size_t>(random_.Below(kSlots));
    }
    after_ = placement_;
    std::swap(after_.slot_expert[a], after_.slot_expert[b]);
    hosts_after_ = HostsOf(after_);
    changes_.clear();
    for (size_t e = 0; e < kExperts; ++e)
      if (hosts_after_[e] != hosts_[e])
        changes_.push_back({static_cast<int32_t>(e), &hosts_[e], &hosts_after_[e]});
    exact_ = ExactCosts(after_, scenarios_, lanes_);
  }
  double Bounds(double limit) { return pool_.Bounds(changes_, limit, present_, bounds_); }
  void Keep() {
    pool_.Apply(changes_);
    placement_ = after_;
    hosts_ = hosts_after_;
    present_ = exact_;
  }

  int64_t work() const { return pool_.work(); }
  double now() const { return present_.back(); }
  double exact() const { return exact_.back(); }

 private:
  static constexpr int32_t kExperts = 12;
  static constexpr int32_t kRanks = 4;
  static constexpr int32_t kSlotsPerRank = 4;
  static constexpr int32_t kSlots = kRanks * kSlotsPerRank;

  Random random_;
  BatchLoads scenarios_;
  Placement placement_, after_;
  ScenarioLanes lanes_;
  CutPool pool_;
  std::vector<uint64_t> hosts_, hosts_after_;
  std::vector<HostChange> changes_;
  std::vector<double> present_, exact_;  // [num_scenarios] sums of costs
  std::vector<float> bounds_;
};

TEST(CutPool, AllSetsOfRanksGiveTheOptimumAfterAChange) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    AllCuts cuts(20, seed);
    for (int move = 0; move < 20; ++move) {
      cuts.Swap();
      ASSERT_NEAR(cuts.Bounds(kInfinity), cuts.exact(), kFloatRounding * (1 + cuts.exact()))
          << "seed " << seed << " move " << move;
      if (move % 2 == 0) cuts.Keep();
    }
  }
}

TEST(CutPool, GivesUpOnceTheLimitIsPassed) {
  AllCuts cuts(20, 1);
  cuts.Swap();
  EXPECT_EQ(cuts.Bounds(cuts.exact() * 0.9), kInfinity);
  EXPECT_NE(cuts.Bounds(cuts.exact() * 1.1), kInfinity);
}

TEST(CutPool, TheFirstOfManyScenariosSpareMostOfWhatGetsBetter) {
  int better = 0;
  int spared = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    AllCuts cuts(300, seed);
    for (int move = 0; move < 20; ++move) {
      cuts.Swap();
      const double bounds = cuts.Bounds(cuts.now());
      if (cuts.exact() > cuts.now() * (1 + kFloatRounding)) {
        ASSERT_EQ(bounds, kInfinity) << "seed " << seed << " move " << move;
      } else if (cuts.exact() < cuts.now() * (1 - kFloatRounding)) {
        ++better;
        spared += bounds < kInfinity;
      }
      if (bounds < kInfinity) cuts.Keep();
    }
  }
  EXPECT_GT(better, 30);
  EXPECT_GE(spared, better * 9 / 10) << "of " << better;
}

TEST(CutPool, TheFirstOfManyScenariosEndWhatGetsMuchWorse) {
  AllCuts cuts(600, 2);
  const int64_t before = cuts.work();
  cuts.Swap();
  cuts.Bounds(kInfinity);
  const int64_t whole = cuts.work() - before;
  int worse = 0;
  for (int move = 0; move < 20; ++move) {
    cuts.Swap();
    if (cuts.exact() < 1.5 * cuts.now()) continue;
    const int64_t start = cuts.work();
    EXPECT_EQ(cuts.Bounds(cuts.now()), kInfinity);
    EXPECT_LT(cuts.work() - start, whole / 3) << "move " << move;
    ++worse;
  }
  EXPECT_GT(worse, 3);
}

}  // namespace
}  // namespace wideload::eplb
