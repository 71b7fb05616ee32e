// Results over any layout of ranks are those of one loop, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <set>

#include "tests/ranks/exchange_load.h"

namespace wideload::exchange {
namespace {

void ExpectOracle(const Load& load) {
  SCOPED_TRACE(load.Name());
  const LoadResult result = RunOverExchange(load);
  ASSERT_TRUE(result.outcome.ok()) << result.outcome.error;
  const std::vector<float> expected = Oracle(load);
  ASSERT_EQ(result.values.size(), expected.size());
  EXPECT_EQ(std::memcmp(result.values.data(), expected.data(), expected.size() * sizeof(float)), 0);
  for (const int64_t rounds : result.num_rounds) EXPECT_EQ(rounds, result.num_rounds[0]);
}

class ExchangeLayouts : public testing::TestWithParam<std::tuple<int, int>> {
 protected:
  Load BaseLoad() const {
    Load load;
    load.num_ranks = std::get<0>(GetParam());
    load.num_buffers = std::get<1>(GetParam());
    return load;
  }
};

INSTANTIATE_TEST_SUITE_P(RanksAndBuffers, ExchangeLayouts,
                         testing::Combine(testing::Values(1, 2, 3, 4, 8, 16),
                                          testing::Values(1, 2, 3)));

TEST_P(ExchangeLayouts, GiveTheBitsOfOneLoopForAnyChunkSize) {
  for (const int64_t max_rows : {1, 5, 16, 64, 100}) {
    Load load = BaseLoad();
    load.max_rows = max_rows;
    ExpectOracle(load);
  }
}

TEST_P(ExchangeLayouts, GiveTheBitsOfOneLoopForReplicatedAndScatteredExperts) {
  for (const int num_slots : {20, 27, 40}) {
    for (const bool is_random : {false, true}) {
      Load load = BaseLoad();
      load.num_slots = num_slots;
      load.is_random_placement = is_random;
      load.seed = static_cast<uint64_t>(num_slots);
      ExpectOracle(load);
    }
  }
}

TEST_P(ExchangeLayouts, GiveTheBitsOfOneLoopForAnyRouting) {
  for (const Routing routing :
       {Routing::kSpread, Routing::kAllToOneRank, Routing::kNoToken, Routing::kMasked}) {
    for (const Share share : {Share::kEven, Share::kUneven, Share::kOnlyLastRank}) {
      Load load = BaseLoad();
      load.routing = routing;
      load.share = share;
      ExpectOracle(load);
    }
  }
}

TEST_P(ExchangeLayouts, GiveTheBitsOfOneLoopUnderSkew) {
  for (const bool is_pipelined : {false, true}) {
    Load load = BaseLoad();
    load.max_rows = 4;
    load.num_layers = 12;
    load.is_skewed = true;
    load.is_pipelined = is_pipelined;
    ExpectOracle(load);
  }
}

TEST_P(ExchangeLayouts, GiveTheBitsOfOneLoopWhenTagsWrap) {
  for (const uint32_t before : {0U, 1U, 2U, 3U, 7U}) {
    Load load = BaseLoad();
    load.max_rows = 4;
    load.first_epoch = 0U - before;
    load.is_skewed = true;
    ExpectOracle(load);
  }
}

TEST(Exchange, RunsSixteenRanksOfTwoThreadsOnFewCores) {
  Load load;
  load.num_ranks = 16;
  load.threads_per_rank = 2;
  load.hidden = 4096;  // large enough that the pool copies
  load.max_rows = 64;
  load.num_tokens = 640;
  load.num_layers = 2;
  load.share = Share::kEven;
  ExpectOracle(load);
}

TEST(Exchange, CopiesLargeRoundsPastTheCaches) {
  Load load;
  load.num_ranks = 3;
  load.threads_per_rank = 2;
  load.hidden = 2051;  // rows that end within a line
  load.max_rows = 400;
  load.num_tokens = 900;
  load.num_layers = 2;
  ExpectOracle(load);
}

TEST(Exchange, GivesTheBitsOfOneLoopForRandomLoads) {
  std::mt19937_64 random(20261121);
  const auto pick = [&](int low, int high) {
    return static_cast<int>(random() % static_cast<uint64_t>(high - low + 1)) + low;
  };
  for (int i = 0; i < 60; ++i) {
    Load load;
    load.num_ranks = pick(1, 9);
    load.num_buffers = pick(1, 4);
    load.max_rows = pick(1, 30);
    load.num_experts = pick(8, 40);
    load.num_slots = load.num_experts + pick(0, load.num_experts);
    load.is_random_placement = pick(0, 1) == 1;
    load.top_k = pick(1, 8);
    // Steps over the experts must not meet: 8 to 40 experts, at most 8 steps of 3.
    load.num_experts = std::max(load.num_experts, load.top_k * 3);
    load.num_slots = std::max(load.num_slots, load.num_experts);
    load.hidden = pick(1, 70);
    load.num_tokens = pick(0, 120);
    load.num_layers = pick(1, 4);
    load.routing = static_cast<Routing>(pick(0, 3));
    load.share = static_cast<Share>(pick(0, 2));
    load.is_skewed = pick(0, 1) == 1;
    load.is_pipelined = pick(0, 1) == 1;
    load.first_epoch = static_cast<uint32_t>(random());
    load.seed = random();
    ExpectOracle(load);
    if (HasFatalFailure()) return;
  }
}

// A round by hand: what arrives, where, and what does not change.
class ExchangeContent : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, ExchangeContent, testing::Values(1, 2, 4, 8));

constexpr std::byte kCanary{0xA5};

// Token t of rank r in round e goes to these slots.
std::vector<int32_t> SlotsOf(int rank, int64_t round, int64_t num_tokens, int num_slots,
                             int top_k) {
  std::mt19937 random(static_cast<uint32_t>(rank * 1000 + round));
  std::vector<int32_t> slots;
  for (int64_t i = 0; i < num_tokens * top_k; ++i)
    slots.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(num_slots + 1)) - 1);
  return slots;
}

TEST_P(ExchangeContent, IsThatOfAPlainAllToAllAndTouchesNothingElse) {
  const int num_ranks = GetParam();
  const ExchangeShape shape{.num_ranks = num_ranks,
                            .max_rows = 7,
                            .top_k = 3,
                            .row_bytes = 200,
                            .return_row_bytes = 72,
                            .num_experts = 9,
                            .num_slots = 3 * num_ranks,
                            .num_buffers = 2};
  const ExchangeLayout layout(shape);
  comm::LocalGroup group(num_ranks, {});
  LocalFabrics fabrics(num_ranks, SegmentBytes(shape));
  const auto num_tokens = [](int rank, int64_t round) { return (rank * 3 + round) % 8; };
  const comm::RankOutcome outcome = comm::RunRanks(group, [&](comm::Communicator& communicator) {
    const int rank = communicator.rank();
    Fabric& fabric = fabrics.rank(rank);
    Exchange exchange(shape, fabric, communicator);
    for (int64_t round = 0; round < 12; ++round) {
      communicator.Barrier();
      // Nobody writes between the two barriers.
      for (int source = 0; source < num_ranks; ++source)
        std::memset(fabric.Local(layout.RegionHeader(round, source)), static_cast<int>(kCanary),
                    static_cast<size_t>(layout.region_bytes() - ExchangeLayout::kCellBytes));
      communicator.Barrier();
      std::vector<int32_t> counts(9);
      for (size_t e = 0; e < counts.size(); ++e)
        counts[e] = static_cast<int32_t>(rank * 100 + round * 10) + static_cast<int32_t>(e);
      exchange.PublishCounts(counts, rank == round % num_ranks);
      const Exchange::Counts all = exchange.WaitCounts();
      EXPECT_TRUE(all.more);
      for (int r = 0; r < num_ranks; ++r)
        for (int e = 0; e < 9; ++e)
          EXPECT_EQ(all.all[static_cast<size_t>(r * 9 + e)], r * 100 + round * 10 + e);

      const int64_t own_tokens = num_tokens(rank, round);
      std::vector<std::byte> rows(static_cast<size_t>(own_tokens) * 256);
      for (int64_t t = 0; t < own_tokens; ++t)
        std::memset(rows.data() + t * 256, static_cast<int>(rank * 16 + t), 200);
      exchange.Dispatch({.rows = rows.data(),
                         .row_stride = 256,
                         .num_tokens = own_tokens,
                         .slots = SlotsOf(rank, round, own_tokens, shape.num_slots, 3)});
      const auto received = exchange.Receive();

      // What the others sent, by the same rule.
      std::vector<std::vector<int>> expected(3);
      for (int source = 0; source < num_ranks; ++source) {
        const auto slots = SlotsOf(source, round, num_tokens(source, round), shape.num_slots, 3);
        std::set<int64_t> tokens_here;
        for (size_t i = 0; i < slots.size(); ++i) {
          if (slots[i] < 0 || slots[i] / 3 != rank) continue;
          const auto t = static_cast<int64_t>(i / 3);
          tokens_here.insert(t);
          expected[static_cast<size_t>(slots[i] % 3)].push_back(source * 16 + static_cast<int>(t));
        }
        // Bytes behind the last row of this source are as they were.
        const auto n = static_cast<int64_t>(tokens_here.size());
        const int64_t end = layout.RegionHeader(round, source) + layout.RegionPayloadBytes(n);
        for (int64_t i = end; i < layout.RegionCell(round, source) + layout.region_bytes(); ++i)
          ASSERT_EQ(*fabric.Local(i), kCanary) << "rank " << rank << " source " << source;
        for (int64_t row = 0; row < n; ++row)
          for (int64_t i = 200; i < layout.row_stride(); ++i)
            ASSERT_EQ(*fabric.Local(layout.RegionRow(round, source, n, row) + i), kCanary);
      }
      ASSERT_EQ(received.size(), 3U);
      for (size_t s = 0; s < 3; ++s) {
        ASSERT_EQ(received[s].x_rows.size(), expected[s].size());
        for (size_t i = 0; i < expected[s].size(); ++i) {
          for (int64_t b = 0; b < 200; ++b)
            ASSERT_EQ(received[s].x_rows[i][b], std::byte(expected[s][i]));
          std::memset(received[s].y_rows[i], expected[s][i] + static_cast<int>(s) * 64, 72);
        }
      }
      exchange.Return();
      const auto returns = exchange.WaitReturns();
      const auto slots = SlotsOf(rank, round, own_tokens, shape.num_slots, 3);
      ASSERT_EQ(returns.size(), slots.size());
      for (size_t i = 0; i < slots.size(); ++i) {
        ASSERT_EQ(returns[i] == nullptr, slots[i] < 0);
        for (int64_t b = 0; b < 72 && slots[i] >= 0; ++b)
          ASSERT_EQ(returns[i][b],
                    std::byte((rank * 16 + static_cast<int>(i / 3) + slots[i] % 3 * 64) & 0xFF));
      }
    }
  });
  EXPECT_TRUE(outcome.ok()) << outcome.error;
}

TEST(Exchange, SendsARowOncePerRankAndAResultOncePerPair) {
  Load load;
  load.num_ranks = 4;
  load.share = Share::kEven;
  load.num_tokens = 40;
  load.num_layers = 1;
  const ExchangeShape shape = ShapeOf(load);
  comm::LocalGroup group(4, {});
  LocalFabrics fabrics(4, SegmentBytes(shape));
  std::vector<float> values(static_cast<size_t>(load.num_tokens * load.hidden));
  std::array<ExchangeTraffic, 4> traffic;
  const auto outcome = comm::RunRanks(group, [&](comm::Communicator& communicator) {
    const auto r = static_cast<size_t>(communicator.rank());
    Exchange exchange(shape, fabrics.rank(communicator.rank()), communicator);
    RunRank(load, exchange, communicator, values);
    traffic[r] = exchange.traffic();
  });
  ASSERT_TRUE(outcome.ok()) << outcome.error;
  for (const ExchangeTraffic& t : traffic) {
    EXPECT_EQ(t.num_rounds, 1);
    EXPECT_EQ(t.num_returns, 10 * load.top_k);
    EXPECT_LT(t.num_rows, 10 * std::min(4, load.top_k) + 1);
    EXPECT_GE(t.num_rows, 10);
  }
}

}  // namespace
}  // namespace wideload::exchange
