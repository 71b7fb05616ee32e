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
  EXPECT_TRUE(IsOracle(load, result));
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

// One rank far ahead of another, no tokens on some, rows of all for one.
TEST_P(ExchangeLayouts, GiveTheBitsOfOneLoopOutOfStep) {
  for (const Share share : {Share::kUneven, Share::kOnlyLastRank}) {
    for (const bool is_own_last : {false, true}) {
      Load load = BaseLoad();
      load.is_free = true;
      load.max_rows = 4;
      load.num_layers = 12;
      load.is_skewed = true;
      load.is_pipelined = is_own_last;
      load.share = share;
      load.num_slots = 27;
      load.first_epoch = 0U - 3;
      ExpectOracle(load);
    }
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
  for (int i = 0; i < 60; ++i) {
    ExpectOracle(RandomLoad(random, 9));
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
  std::mt19937 random(static_cast<uint32_t>(int64_t{rank} * 1000 + round));
  std::vector<int32_t> slots;
  for (int64_t i = 0; i < num_tokens * top_k; ++i)
    slots.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(num_slots + 1)) - 1);
  return slots;
}

// One rank of that test: payloads of 200 bytes out, 72 bytes back, 3 slots per rank, top-3.
class ContentRank {
 public:
  static ExchangeShape Shape(int num_ranks) {
    return {.num_ranks = num_ranks,
            .max_rows = 7,
            .top_k = kTopK,
            .row_bytes = kRowBytes,
            .return_row_bytes = kReturnBytes,
            .num_experts = kExperts,
            .num_slots = kSlots * num_ranks,
            .num_buffers = 2};
  }

  ContentRank(Fabric& fabric, comm::Communicator& group)
      : num_ranks_(group.size()),
        rank_(group.rank()),
        layout_(Shape(num_ranks_)),
        fabric_(fabric),
        group_(group),
        exchange_(Shape(num_ranks_), fabric, group) {}

  void Round(int64_t round) {
    round_ = round;
    PaintRegions();
    ExchangeCounts();
    Dispatch();
    const auto received = exchange_.Receive();
    std::vector<std::vector<int>> expected(kSlots);
    for (int source = 0; source < num_ranks_; ++source) CheckRegion(source, expected);
    CheckReceivedAndAnswer(received, expected);
    exchange_.Return();
    CheckReturns();
  }

 private:
  static constexpr int kTopK = 3;
  static constexpr int kSlots = 3;
  static constexpr int kExperts = 9;
  static constexpr int64_t kRowBytes = 200;
  static constexpr int64_t kReturnBytes = 72;
  static constexpr int64_t kStride = 256;

  int64_t NumTokens(int rank) const { return (int64_t{rank} * 3 + round_) % 8; }
  std::vector<int32_t> Slots(int rank) const {
    return SlotsOf(rank, round_, NumTokens(rank), kSlots * num_ranks_, kTopK);
  }

  // Nobody writes rows between the two barriers.
  void PaintRegions() {
    group_.Barrier();
    for (int source = 0; source < num_ranks_; ++source)
      std::memset(fabric_.Local(layout_.RegionHeader(round_, source)), static_cast<int>(kCanary),
                  static_cast<size_t>(layout_.region_bytes() - ExchangeLayout::kCellBytes));
    group_.Barrier();
  }

  void ExchangeCounts() {
    const auto count = [&](int rank, int e) {
      return static_cast<int32_t>((round_ * 7 + int64_t{5} * rank + int64_t{4} * e) % 3);  // <= 18
    };
    std::vector<int32_t> counts;
    for (int e = 0; e < kExperts; ++e) counts.push_back(count(rank_, e));
    exchange_.PublishCounts(counts, rank_ == round_ % num_ranks_);
    const Exchange::Counts all = exchange_.WaitCounts();
    EXPECT_TRUE(all.more);
    for (int r = 0; r < num_ranks_; ++r)
      for (int e = 0; e < kExperts; ++e)
        EXPECT_EQ(all.all[static_cast<size_t>(r * kExperts + e)], count(r, e));
  }

  void Dispatch() {
    const int64_t num_tokens = NumTokens(rank_);
    rows_.assign(static_cast<size_t>(num_tokens * kStride), std::byte());
    for (int64_t t = 0; t < num_tokens; ++t)
      std::memset(rows_.data() + t * kStride, static_cast<int>(int64_t{rank_} * 16 + t), kRowBytes);
    exchange_.Dispatch({.rows = rows_.data(),
                        .row_stride = kStride,
                        .num_tokens = num_tokens,
                        .slots = Slots(rank_)});
  }

  // Adds what `source` sent, by the rule it used; bytes between and behind its rows are untouched.
  void CheckRegion(int source, std::vector<std::vector<int>>& expected) {
    const std::vector<int32_t> slots = Slots(source);
    std::set<size_t> tokens_here;
    for (size_t i = 0; i < slots.size(); ++i) {
      if (slots[i] < 0 || slots[i] / kSlots != rank_) continue;
      tokens_here.insert(i / kTopK);
      expected[static_cast<size_t>(slots[i] % kSlots)].push_back(source * 16 +
                                                                 static_cast<int>(i / kTopK));
    }
    const auto n = static_cast<int64_t>(tokens_here.size());
    const int64_t end = layout_.RegionHeader(round_, source) + layout_.RegionPayloadBytes(n);
    for (int64_t i = end; i < layout_.RegionCell(round_, source) + layout_.region_bytes(); ++i)
      ASSERT_EQ(*fabric_.Local(i), kCanary) << "rank " << rank_ << " source " << source;
    for (int64_t row = 0; row < n; ++row)
      for (int64_t i = kRowBytes; i < layout_.row_stride(); ++i)
        ASSERT_EQ(*fabric_.Local(layout_.RegionRow(round_, source, n, row) + i), kCanary);
  }

  void CheckReceivedAndAnswer(std::span<const Exchange::SlotRows> received,
                              const std::vector<std::vector<int>>& expected) {
    ASSERT_EQ(received.size(), expected.size());
    for (size_t s = 0; s < received.size(); ++s) {
      ASSERT_EQ(received[s].x_rows.size(), expected[s].size());
      for (size_t i = 0; i < expected[s].size(); ++i) {
        for (int64_t b = 0; b < kRowBytes; ++b)
          ASSERT_EQ(received[s].x_rows[i][b], std::byte(expected[s][i]));
        std::memset(received[s].y_rows[i], expected[s][i] + static_cast<int>(s) * 64, kReturnBytes);
      }
    }
  }

  void CheckReturns() {
    const auto returns = exchange_.WaitReturns();
    const std::vector<int32_t> slots = Slots(rank_);
    ASSERT_EQ(returns.size(), slots.size());
    for (size_t i = 0; i < slots.size(); ++i) {
      ASSERT_EQ(returns[i] == nullptr, slots[i] < 0);
      const int value = rank_ * 16 + static_cast<int>(i / kTopK) + slots[i] % kSlots * 64;
      for (int64_t b = 0; b < kReturnBytes && slots[i] >= 0; ++b)
        ASSERT_EQ(returns[i][b], std::byte(value & 0xFF));
    }
  }

  int num_ranks_;
  int rank_;
  ExchangeLayout layout_;
  Fabric& fabric_;
  comm::Communicator& group_;
  Exchange exchange_;
  std::vector<std::byte> rows_;
  int64_t round_ = 0;
};

TEST_P(ExchangeContent, IsThatOfAPlainAllToAllAndTouchesNothingElse) {
  const int num_ranks = GetParam();
  comm::LocalGroup group(num_ranks, {});
  LocalFabrics fabrics(num_ranks, SegmentBytes(ContentRank::Shape(num_ranks)));
  const comm::RankOutcome outcome = comm::RunRanks(group, [&](comm::Communicator& communicator) {
    ContentRank rank(fabrics.rank(communicator.rank()), communicator);
    for (int64_t round = 0; round < 12; ++round) rank.Round(round);
  });
  EXPECT_TRUE(outcome.ok()) << outcome.error;
}

// Two ranks out of step: rank 1 is a round ahead when rank 0 dispatches its first rows.
TEST(Exchange, TakesRowsOfWhoIsAheadBeforeItsOwn) {
  ExchangeShape shape = ContentRank::Shape(2);
  shape.is_free = true;
  for (const auto order : {Exchange::Order::kOwnLast, Exchange::Order::kTogether}) {
    comm::LocalGroup group(2, {});
    LocalFabrics fabrics(2, SegmentBytes(shape));
    const auto outcome = comm::RunRanks(group, [&](comm::Communicator& rank) {
      Exchange exchange(shape, fabrics.rank(rank.rank()), rank);
      const std::vector<int32_t> counts(static_cast<size_t>(shape.num_experts), 0);
      const std::vector<std::byte> row(static_cast<size_t>(shape.row_bytes));
      const std::vector<int32_t> slots = {0, -1, -1};
      const auto dispatch = [&] {
        exchange.PublishCounts(counts, false);
        exchange.Dispatch(
            {.rows = row.data(), .row_stride = shape.row_bytes, .num_tokens = 1, .slots = slots});
      };
      const auto expect_taken = [&](int64_t round, int source) {
        const auto taken = exchange.TakeRows(order);
        ASSERT_TRUE(taken.has_value());
        EXPECT_EQ(taken->round, round);
        EXPECT_EQ(std::vector<int>(taken->sources.begin(), taken->sources.end()),
                  std::vector<int>{source});
        exchange.Return();
      };
      if (rank.rank() == 1) {
        dispatch();
        expect_taken(0, 1);
      }
      rank.Barrier();
      if (rank.rank() == 0) expect_taken(0, 1);
      rank.Barrier();
      if (rank.rank() == 1) {
        ASSERT_TRUE(exchange.HasReturns());
        exchange.WaitReturns();
        dispatch();
      }
      rank.Barrier();
      if (rank.rank() == 0) {
        dispatch();
        const bool is_own_last = order == Exchange::Order::kOwnLast;
        expect_taken(is_own_last ? 1 : 0, is_own_last ? 1 : 0);
        expect_taken(is_own_last ? 0 : 1, is_own_last ? 0 : 1);
      }
      rank.Barrier();
    });
    EXPECT_TRUE(outcome.ok()) << outcome.error;
  }
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
