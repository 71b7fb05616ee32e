#include "eplb/split/slot_chooser.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "base/error.h"
#include "eplb/split/max_flow.h"

namespace wideload::eplb {
namespace {

struct Case {
  Placement placement;
  std::vector<int32_t> counts;  // [num_ranks * num_experts]
  std::vector<int64_t> Totals() const {
    std::vector<int64_t> totals(static_cast<size_t>(placement.num_experts), 0);
    for (size_t i = 0; i < counts.size(); ++i) totals[i % totals.size()] += counts[i];
    return totals;
  }
};

// Sizes, placement (duplicates on a rank included) and skewed counts, all from the seed.
Case RandomCase(uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto ranks = static_cast<int32_t>(1 + random() % 9);
  const auto slots_per_rank = static_cast<int32_t>(1 + random() % 9);
  const int32_t slots = ranks * slots_per_rank;
  const auto experts = static_cast<int32_t>(1 + random() % static_cast<uint64_t>(slots));
  Case c{RandomPlacement(experts, slots, ranks, seed), {}};
  const uint64_t scale = 1 + random() % 60;
  for (int32_t i = 0; i < ranks * experts; ++i)
    c.counts.push_back(
        static_cast<int32_t>(random() % 7 == 0 ? random() % (scale * 8) : random() % scale));
  return c;
}

// Whether some split gives no rank more than `level` tokens.
bool Fits(const Placement& placement, const std::vector<int64_t>& totals, int64_t level) {
  const int32_t source = placement.num_experts + placement.num_ranks;
  MaxFlow flow(source + 2);
  int64_t sum = 0;
  for (int32_t e = 0; e < placement.num_experts; ++e) {
    flow.AddArc(source, e, totals[static_cast<size_t>(e)]);
    sum += totals[static_cast<size_t>(e)];
  }
  for (int32_t s = 0; s < placement.num_slots(); ++s)
    flow.AddArc(placement.slot_expert[static_cast<size_t>(s)].value,
                placement.num_experts + placement.RankOf(SlotId(s)).value, sum);
  for (int32_t r = 0; r < placement.num_ranks; ++r)
    flow.AddArc(placement.num_experts + r, source + 1, level);
  return flow.Solve(source, source + 1) == sum;
}

std::vector<int32_t> EntriesOf(const Case& c, int32_t rank, uint64_t seed) {
  std::vector<int32_t> entries;
  for (int32_t e = 0; e < c.placement.num_experts; ++e)
    entries.insert(entries.end(),
                   static_cast<size_t>(
                       c.counts[static_cast<size_t>(int64_t{rank} * c.placement.num_experts + e)]),
                   e);
  std::mt19937_64 random(seed);
  std::shuffle(entries.begin(), entries.end(), random);
  return entries;
}

TEST(SlotChooser, GivesTheBusiestRankTheLeastThatMaxFlowAllows) {
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    const Case c = RandomCase(seed);
    SlotChooser chooser(c.placement, SplitMode::kOptimal);
    chooser.Prepare(c.counts);
    const std::vector<int64_t> totals = c.Totals();
    std::vector<int64_t> rank_tokens(static_cast<size_t>(c.placement.num_ranks), 0);
    std::vector<int64_t> expert_tokens(totals.size(), 0);
    for (int32_t s = 0; s < c.placement.num_slots(); ++s) {
      const int32_t quota = chooser.quotas()[static_cast<size_t>(s)];
      ASSERT_GE(quota, 0);
      rank_tokens[static_cast<size_t>(c.placement.RankOf(SlotId(s)).value)] += quota;
      expert_tokens[static_cast<size_t>(c.placement.slot_expert[static_cast<size_t>(s)].value)] +=
          quota;
    }
    ASSERT_EQ(expert_tokens, totals) << "seed " << seed;
    const int64_t busiest = *std::max_element(rank_tokens.begin(), rank_tokens.end());
    ASSERT_TRUE(Fits(c.placement, totals, busiest)) << "seed " << seed;
    ASSERT_TRUE(busiest == 0 || !Fits(c.placement, totals, busiest - 1)) << "seed " << seed;
  }
}

TEST(SlotChooser, SourcesTogetherFillEveryQuotaExactly) {
  for (uint64_t seed = 0; seed < 500; ++seed) {
    const Case c = RandomCase(seed);
    SlotChooser chooser(c.placement, SplitMode::kOptimal);
    chooser.Prepare(c.counts);
    std::vector<int32_t> received(static_cast<size_t>(c.placement.num_slots()), 0);
    for (int32_t r = 0; r < c.placement.num_ranks; ++r) {
      const std::vector<int32_t> entries = EntriesOf(c, r, seed);
      std::vector<int32_t> slots(entries.size());
      chooser.ChooseSlots(EpRank(r), entries, slots);
      for (size_t i = 0; i < slots.size(); ++i) {
        ++received[static_cast<size_t>(slots[i])];
        ASSERT_EQ(c.placement.slot_expert[static_cast<size_t>(slots[i])].value, entries[i]);
      }
    }
    ASSERT_TRUE(std::ranges::equal(received, chooser.quotas())) << "seed " << seed;
  }
}

// Two sources at home on each rank: their counts are those of one source in two parts.
TEST(SlotChooser, MoreSourcesThanRanksFillTheSameQuotas) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    Case c = RandomCase(seed);
    SlotChooser one(c.placement, SplitMode::kOptimal);
    one.Prepare(c.counts);
    const size_t num_counts = c.counts.size();
    for (size_t i = 0; i < num_counts; ++i) {
      c.counts.push_back(c.counts[i] / 3);
      c.counts[i] -= c.counts.back();
    }
    SlotChooser chooser(c.placement, SplitMode::kOptimal, 2 * c.placement.num_ranks);
    chooser.Prepare(c.counts);
    ASSERT_TRUE(std::ranges::equal(chooser.quotas(), one.quotas())) << "seed " << seed;
    std::vector<int32_t> received(static_cast<size_t>(c.placement.num_slots()), 0);
    for (int32_t source = 0; source < 2 * c.placement.num_ranks; ++source) {
      const std::vector<int32_t> entries = EntriesOf(c, source, seed);
      std::vector<int32_t> slots(entries.size());
      chooser.ChooseSlots(EpRank(source), entries, slots);
      for (const int32_t slot : slots) ++received[static_cast<size_t>(slot)];
    }
    ASSERT_TRUE(std::ranges::equal(received, chooser.quotas())) << "seed " << seed;
  }
}

TEST(SlotChooser, ChoosesTheSameWhateverItPreparedBefore) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const Case c = RandomCase(seed);
    SlotChooser used(c.placement, SplitMode::kOptimal);
    std::vector<int32_t> other = c.counts;
    std::reverse(other.begin(), other.end());
    used.Prepare(other);
    used.Prepare(c.counts);
    SlotChooser fresh(c.placement, SplitMode::kOptimal);
    fresh.Prepare(c.counts);
    ASSERT_TRUE(std::ranges::equal(used.quotas(), fresh.quotas())) << "seed " << seed;
  }
}

// Experts 0 and 1 on both ranks: an even split exists with and without moving tokens.
TEST(SlotChooser, PrefersReplicasOfTheSourceRank) {
  const Placement placement{2, 2, {ExpertId(0), ExpertId(1), ExpertId(0), ExpertId(1)}};
  SlotChooser chooser(placement, SplitMode::kOptimal);
  chooser.Prepare(std::vector<int32_t>{4, 4, 4, 4});
  const std::vector<int32_t> entries = {0, 1, 0, 1, 0, 1, 0, 1};
  std::vector<int32_t> slots(entries.size());
  for (int32_t r = 0; r < 2; ++r) {
    chooser.ChooseSlots(EpRank(r), entries, slots);
    for (const int32_t slot : slots) EXPECT_EQ(placement.RankOf(SlotId(slot)), EpRank(r));
  }
}

// As many tokens stay on their rank as the quotas allow: whatever the order of sources and slots.
TEST(SlotChooser, KeepsAsManyTokensAtHomeAsTheQuotasAllow) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    const Case c = RandomCase(seed);
    const auto experts = static_cast<size_t>(c.placement.num_experts);
    const auto ranks = static_cast<size_t>(c.placement.num_ranks);
    SlotChooser chooser(c.placement, SplitMode::kOptimal);
    chooser.Prepare(c.counts);
    std::vector<int32_t> given(experts * ranks, 0);    // tokens of an expert that a rank computes
    std::vector<int32_t> at_home(experts * ranks, 0);  // those of them that are its own
    for (size_t source = 0; source < ranks; ++source) {
      const std::vector<int32_t> entries = EntriesOf(c, static_cast<int32_t>(source), seed);
      std::vector<int32_t> slots(entries.size());
      chooser.ChooseSlots(EpRank(static_cast<int32_t>(source)), entries, slots);
      for (size_t i = 0; i < slots.size(); ++i) {
        const auto rank = static_cast<size_t>(c.placement.RankOf(SlotId(slots[i])).value);
        const size_t at = rank * experts + static_cast<size_t>(entries[i]);
        ++given[at];
        if (rank == source) ++at_home[at];
      }
    }
    for (size_t i = 0; i < given.size(); ++i)
      EXPECT_EQ(at_home[i], std::min(given[i], c.counts[i])) << "seed " << seed;
  }
}

TEST(SlotChooser, GivesNegativeIdsNoSlot) {
  for (const SplitMode mode : {SplitMode::kOptimal, SplitMode::kRoundRobin, SplitMode::kFirst}) {
    SlotChooser chooser(ContiguousPlacement(4, 6, 2), mode);
    chooser.Prepare(std::vector<int32_t>{1, 0, 0, 0, 0, 0, 0, 0});
    std::vector<int32_t> slots(3);
    chooser.ChooseSlots(EpRank(0), std::vector<int32_t>{-1, 0, -5}, slots);
    EXPECT_EQ(slots[0], -1);
    EXPECT_GE(slots[1], 0);
    EXPECT_EQ(slots[2], -1);
  }
}

TEST(SlotChooser, TakesReplicasInTurnFromTheSourceRanksOwnStart) {
  const Placement placement{2, 2, {ExpertId(0), ExpertId(1), ExpertId(0), ExpertId(1)}};
  SlotChooser chooser(placement, SplitMode::kRoundRobin);
  std::vector<int32_t> slots(4);
  chooser.ChooseSlots(EpRank(0), std::vector<int32_t>{0, 0, 1, 0}, slots);
  EXPECT_EQ(slots, (std::vector<int32_t>{0, 2, 1, 0}));
  chooser.ChooseSlots(EpRank(1), std::vector<int32_t>{0, 0, 1, 0}, slots);
  EXPECT_EQ(slots, (std::vector<int32_t>{2, 0, 3, 2}));
  // Counting starts again every 1024 entries, one replica later.
  const std::vector<int32_t> long_run(1025, 1);
  std::vector<int32_t> long_slots(1025);
  chooser.ChooseSlots(EpRank(0), long_run, long_slots);
  EXPECT_EQ(long_slots[1023], 3);
  EXPECT_EQ(long_slots[1024], 3);
}

TEST(ParseSplitMode, RefusesOtherNamesAndListsTheAllowed) {
  EXPECT_EQ(ParseSplitMode("round_robin"), SplitMode::kRoundRobin);
  try {
    ParseSplitMode("best");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "split is \"best\"; allowed: optimal, round_robin, first");
  }
}

// Any number of tokens, whoever was counted: each slot gets about its quota's part.
TEST(SlotChooser, DividesOtherTokensInProportionToItsQuotas) {
  constexpr int kRanks = 4;
  constexpr int32_t kExperts = 6;
  const Placement placement = RandomPlacement(kExperts, 12, kRanks, 3);
  std::vector<int32_t> counts;
  for (int r = 0; r < kRanks; ++r)
    for (int32_t e = 0; e < kExperts; ++e) counts.push_back(7 * e + r);
  SlotChooser chooser(placement, SplitMode::kOptimal);
  chooser.Prepare(counts);
  constexpr int32_t kTokens = 1000;
  for (int32_t e = 0; e < kExperts; ++e) {
    const std::vector<int32_t> ids(kTokens, e);
    std::vector<int32_t> slots(kTokens);
    std::vector<int32_t> got(12);
    for (int32_t r = 0; r < kRanks; ++r) {
      chooser.ChooseSlotsInProportion(EpRank(r), ids, slots);
      for (const int32_t slot : slots) {
        ASSERT_EQ(placement.slot_expert[static_cast<size_t>(slot)].value, e);
        ++got[static_cast<size_t>(slot)];
      }
    }
    int32_t total = 0;
    for (size_t s = 0; s < got.size(); ++s)
      if (placement.slot_expert[s].value == e) total += chooser.quotas()[s];
    if (total == 0) continue;  // counted by nobody
    for (size_t s = 0; s < got.size(); ++s) {
      if (placement.slot_expert[s].value != e) continue;
      const double wanted = 1.0 * kRanks * kTokens * chooser.quotas()[s] / total;
      EXPECT_NEAR(got[s], wanted, 0.01 * kRanks * kTokens) << "expert " << e << ", slot " << s;
    }
  }
}

TEST(SlotChooser, UsesEverySlotOfAnExpertThatNobodyCounted) {
  const Placement placement{
      .num_experts = 1, .num_ranks = 3, .slot_expert = {ExpertId(0), ExpertId(0), ExpertId(0)}};
  SlotChooser chooser(placement, SplitMode::kOptimal);
  chooser.Prepare(std::vector<int32_t>(3, 0));
  const std::vector<int32_t> ids = {0, 0, -1, 0, 0, 0, 0};
  std::vector<int32_t> slots(ids.size());
  chooser.ChooseSlotsInProportion(EpRank(1), ids, slots);
  EXPECT_EQ(slots[2], -1);
  for (int32_t slot = 0; slot < 3; ++slot) EXPECT_GE(std::ranges::count(slots, slot), 1) << slot;
}

}  // namespace
}  // namespace wideload::eplb
