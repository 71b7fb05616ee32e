// Seeds are stated with each case.
#include "rebalance/online_balancer.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "base/error.h"

namespace wideload::rebalance {
namespace {

constexpr int32_t kFewExperts = 6;
constexpr int32_t kFewLayers = 3;

std::vector<eplb::Placement> FewExperts() {
  return std::vector<eplb::Placement>(kFewLayers, eplb::ContiguousPlacement(kFewExperts, 8, 4));
}

std::vector<int32_t> RisingCounts(int32_t first) {
  std::vector<int32_t> counts(kFewLayers * kFewExperts);
  for (size_t i = 0; i < counts.size(); ++i) counts[i] = first + static_cast<int32_t>(i % 5);
  return counts;
}

std::vector<PlacementChange> ChangesOf(const OnlineOptions& options, int64_t iterations) {
  OnlineBalancer balancer(options, FewExperts());
  std::vector<PlacementChange> changes;
  for (int64_t i = 0; i < iterations; ++i) {
    if (auto change = balancer.ChangeFor(i)) changes.push_back(std::move(*change));
    balancer.Observe(i, RisingCounts(static_cast<int32_t>(i)), false);
  }
  return changes;
}

TEST(OnlineBalancer, OffChangesNothing) { EXPECT_TRUE(ChangesOf({}, 5).empty()); }

TEST(OnlineBalancer, RandomMovesEveryLayerFromTheDelayOn) {
  const OnlineOptions options{.mode = Mode::kRandom, .seed = 7, .delay_iterations = 2};
  const auto changes = ChangesOf(options, 12);
  ASSERT_EQ(changes.size(), 10U);
  for (size_t i = 0; i < changes.size(); ++i) {
    EXPECT_EQ(changes[i].generation, static_cast<int64_t>(i) + 1);
    ASSERT_EQ(changes[i].layers.size(), size_t{kFewLayers});
    for (int32_t layer = 0; layer < kFewLayers; ++layer) {
      EXPECT_EQ(changes[i].layers[static_cast<size_t>(layer)].moe_layer, layer);
      eplb::ValidatePlacement(changes[i].layers[static_cast<size_t>(layer)].placement, "test");
    }
    EXPECT_TRUE(i == 0 || changes[i].layers != changes[i - 1].layers);
  }
  EXPECT_EQ(changes, ChangesOf(options, 12));
  EXPECT_NE(changes, ChangesOf({.mode = Mode::kRandom, .seed = 8}, 12));
}

TEST(OnlineBalancer, NobodyWaitsForALatePlan) {
  const OnlineOptions options{.mode = Mode::kRandom, .delay_iterations = 1, .is_waiting = false};
  OnlineBalancer balancer(options, FewExperts());
  int64_t generation = 0;
  for (int64_t i = 0; i < 300; ++i) {
    const auto change = balancer.ChangeFor(i);
    if (change) generation += 1;
    EXPECT_TRUE(!change || change->generation == generation);
    balancer.Observe(i, RisingCounts(1), false);
  }
  EXPECT_EQ(balancer.figures().num_changes, generation);
  EXPECT_LE(generation + balancer.figures().num_skipped, 300);
}

TEST(OnlineBalancer, PlansThatNobodyAsksForAreBounded) {
  OnlineBalancer balancer({.mode = Mode::kRandom, .delay_iterations = 2}, FewExperts());
  for (int64_t i = 0; i < 50; ++i) balancer.Observe(i, RisingCounts(1), false);
  const auto change = balancer.ChangeFor(60);
  ASSERT_TRUE(change);
  EXPECT_EQ(change->layers.size(), size_t{kFewLayers});
  EXPECT_FALSE(balancer.ChangeFor(61));
}

TEST(OnlineBalancer, RefusesLayersThatDiffer) {
  std::vector<eplb::Placement> start = FewExperts();
  start[1] = eplb::ContiguousPlacement(kFewExperts, 12, 4);
  EXPECT_THROW(OnlineBalancer({.mode = Mode::kRandom}, start), Error);
  EXPECT_THROW(OnlineBalancer({.mode = Mode::kRandom, .delay_iterations = 0}, FewExperts()), Error);
}

TEST(ParseMode, NamesWhatIsAllowed) {
  OnlineOptions options;
  ParseMode("random:42", "--rebalance", options);
  EXPECT_EQ(options.mode, Mode::kRandom);
  EXPECT_EQ(options.seed, 42U);
  ParseMode("off", "--rebalance", options);
  EXPECT_EQ(options.mode, Mode::kOff);
  for (const char* wrong : {"", "random", "random:", "random:x", "random:1x", "random:-1", "on"})
    EXPECT_THROW(ParseMode(wrong, "--rebalance", options), Error) << wrong;
}

TEST(PlacementChange, DigestTellsChangesApart) {
  const PlacementChange change{1, {{0, FewExperts()[0]}}};
  std::set<uint64_t> digests = {DigestOf(change)};
  PlacementChange other = change;
  other.generation = 2;
  digests.insert(DigestOf(other));
  other = change;
  other.layers[0].moe_layer = 1;
  digests.insert(DigestOf(other));
  other = change;
  std::swap(other.layers[0].placement.slot_expert[0], other.layers[0].placement.slot_expert[1]);
  digests.insert(DigestOf(other));
  EXPECT_EQ(digests.size(), 4U);
  EXPECT_EQ(DigestOf(change), DigestOf(PlacementChange(change)));
}

}  // namespace
}  // namespace wideload::rebalance
