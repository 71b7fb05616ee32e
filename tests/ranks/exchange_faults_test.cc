// A rank that stops answering ends the others, who say what they waited for; ranks that do not fit
// together are refused at start.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <functional>

#include "tests/ranks/exchange_load.h"

namespace wideload::exchange {
namespace {

using std::chrono::milliseconds;

Load FaultLoad() {
  Load load;
  load.num_ranks = 4;
  load.max_rows = 4;
  load.is_pipelined = false;
  return load;
}

// Leaves the rank's loop without a word to the others.
struct Vanish {};

// Runs the load, whose probe lets a rank vanish; nobody else may come to the end. Returns how many
// ranks have lost a peer; each gives what it knows to `on_lost`.
int CountLost(const Load& load, const Probe& probe,
              const std::function<void(const comm::PeerLost&)>& on_lost) {
  const ExchangeShape shape = ShapeOf(load);
  comm::LocalGroup group(load.num_ranks, {.deadline = milliseconds(300)});
  LocalFabrics fabrics(load.num_ranks, SegmentBytes(shape));
  std::vector<float> values(static_cast<size_t>(load.num_layers * load.num_tokens * load.hidden));
  std::atomic<int> num_lost{0};
  const auto outcome = comm::RunRanks(group, [&](comm::Communicator& communicator) {
    Exchange exchange(shape, fabrics.rank(communicator.rank()), communicator);
    try {
      RunRank(load, exchange, communicator, values, probe);
      ADD_FAILURE() << "rank " << communicator.rank() << " came to the end";
    } catch (const Vanish&) {
      // needs no refusal: the rank is gone
    } catch (const comm::PeerLost& lost) {
      on_lost(lost);
      ++num_lost;
    }
  });
  EXPECT_TRUE(outcome.stuck_ranks.empty());
  return num_lost;
}

struct FaultCase {
  const char* call;
  const char* awaited;
};

class DeadRank : public testing::TestWithParam<FaultCase> {};
INSTANTIATE_TEST_SUITE_P(AtEachCall, DeadRank,
                         testing::Values(FaultCase{"PublishCounts", "the counts of round 3"},
                                         FaultCase{"WaitCounts", "the rows of round 3"},
                                         FaultCase{"Dispatch", "the rows of round 3"},
                                         FaultCase{"Receive", "the results of round 3"},
                                         FaultCase{"Return", "the results of round 3"},
                                         FaultCase{"WaitReturns", "the counts of round 4"}),
                         [](const auto& test) { return std::string(test.param.call); });

TEST_P(DeadRank, EndsAllOthersWithItsNameAndWhatItOwes) {
  const FaultCase fault = GetParam();
  const Load load = FaultLoad();
  constexpr int kDead = 2;
  const int num_lost = CountLost(
      load,
      [&](int rank, const char* call, int64_t round) {
        if (rank == kDead && round == 3 && std::strcmp(call, fault.call) == 0) throw Vanish{};
      },
      [&](const comm::PeerLost& lost) {
        const std::string text = lost.what();
        EXPECT_NE(text.find(fmt::format("waited for {} of rank {}", fault.awaited, kDead)),
                  std::string::npos)
            << text;
        EXPECT_NE(text.find("iteration 1, layer 0"), std::string::npos) << text;
      });
  EXPECT_EQ(num_lost, load.num_ranks - 1);
}

// Out of step a rank waits for whoever owes it something; all of them for the dead one in the end.
TEST(DeadRankOutOfStep, EndsAllOthersWithItsName) {
  constexpr int kDead = 2;
  for (const char* call : {"PublishCounts", "Dispatch", "TakeRows", "Return", "WaitReturns"}) {
    Load load = FaultLoad();
    load.is_free = true;
    const int num_lost = CountLost(
        load,
        [&](int rank, const char* called, int64_t round) {
          if (rank == kDead && round >= 3 && std::strcmp(called, call) == 0) throw Vanish{};
        },
        [&](const comm::PeerLost& lost) {
          EXPECT_NE(std::string(lost.what()).find(fmt::format("of rank {}", kDead)),
                    std::string::npos)
              << call << ": " << lost.what();
        });
    EXPECT_EQ(num_lost, load.num_ranks - 1) << call;
  }
}

TEST(Exchange, EndsWhenAnotherPartOfTheRankFails) {
  const Load load = FaultLoad();
  const LoadResult result = RunOverExchange(load, [](int rank, const char* call, int64_t round) {
    if (rank == 1 && round == 2 && std::strcmp(call, "Receive") == 0)
      Throw(ErrorKind::kResource, "no memory for the rows of slot 7");
  });
  EXPECT_EQ(result.outcome.error, "no memory for the rows of slot 7");
  EXPECT_TRUE(result.outcome.stuck_ranks.empty());
}

TEST(Exchange, TellsItsPeersThroughTheSegmentsToo) {
  const Load load = FaultLoad();
  const ExchangeShape shape = ShapeOf(load);
  const ExchangeLayout layout(shape);
  // Two groups that do not hear of each other, one set of segments.
  comm::LocalGroup first(load.num_ranks, {.deadline = milliseconds(200)});
  LocalFabrics fabrics(load.num_ranks, SegmentBytes(shape));
  const auto outcome = comm::RunRanks(first, [&](comm::Communicator& communicator) {
    Exchange exchange(shape, fabrics.rank(communicator.rank()), communicator);
    if (communicator.rank() != 0) return;
    exchange.PublishCounts(std::vector<int32_t>(20), false);
    exchange.WaitCounts();
  });
  EXPECT_FALSE(outcome.ok());
  for (int r = 1; r < load.num_ranks; ++r) {
    EXPECT_TRUE(fabrics.rank(r).Test(layout.AbortCell(0), 1));
    const std::string text =
        reinterpret_cast<const char*>(fabrics.rank(r).Local(layout.AbortText(0)));
    EXPECT_EQ(text, outcome.error);
  }
}

TEST(Exchange, RefusesRanksWhoseShapesDifferNamingTheField) {
  const ExchangeShape shape = ShapeOf(FaultLoad());
  comm::LocalGroup group(4, {});
  LocalFabrics fabrics(4, SegmentBytes(shape));
  const auto outcome = comm::RunRanks(group, [&](comm::Communicator& communicator) {
    ExchangeShape own = shape;
    if (communicator.rank() == 3) own.row_bytes += 32;
    Exchange exchange(own, fabrics.rank(communicator.rank()), communicator);
    ADD_FAILURE() << "accepted";
  });
  EXPECT_EQ(outcome.error,
            "exchange: row_bytes is 96 on rank 0 and 128 on rank 3; it must be the same");
}

// Of another generation, and of the same generation with other contents.
TEST(Exchange, EndsWhenARankGoesByAnotherPlacement) {
  const ExchangeShape shape = ShapeOf(FaultLoad());
  for (const PlacementStamp& other : {PlacementStamp{4, 17}, PlacementStamp{5, 18}}) {
    comm::LocalGroup group(4, {});
    LocalFabrics fabrics(4, SegmentBytes(shape));
    std::atomic<int> num_ended{0};
    const auto outcome = comm::RunRanks(group, [&](comm::Communicator& communicator) {
      Exchange exchange(shape, fabrics.rank(communicator.rank()), communicator);
      exchange.UsePlacement(communicator.rank() == 2 ? other : PlacementStamp{5, 17});
      try {
        exchange.PublishCounts(std::vector<int32_t>(20), false);
        exchange.WaitCounts();
      } catch (const Error&) {
        ++num_ended;
        throw;
      }
    });
    EXPECT_EQ(num_ended, 4);
    // Whoever says so first names both.
    EXPECT_NE(outcome.error.find("goes by placement generation"), std::string::npos);
    EXPECT_NE(outcome.error.find("rank 2"), std::string::npos) << outcome.error;
    for (const PlacementStamp& stamp : {other, PlacementStamp{5, 17}})
      EXPECT_NE(outcome.error.find(fmt::format("{} ({:016x})", stamp.generation, stamp.digest)),
                std::string::npos)
          << outcome.error;
  }
}

TEST(Exchange, RefusesSegmentsThatAreTooSmall) {
  const ExchangeShape shape = ShapeOf(FaultLoad());
  comm::LocalGroup group(4, {});
  LocalFabrics fabrics(4, SegmentBytes(shape) - 4096);
  const auto outcome = comm::RunRanks(group, [&](comm::Communicator& communicator) {
    Exchange exchange(shape, fabrics.rank(communicator.rank()), communicator);
  });
  EXPECT_NE(outcome.error.find("segments have"), std::string::npos) << outcome.error;
}

// Calls out of order end the process with the rule.
class CallOrder : public testing::Test {
 protected:
  CallOrder() : group_(1, {}), fabrics_(1, SegmentBytes(kShape)), counts_(2) {}
  void Round(Exchange& exchange) {
    exchange.PublishCounts(counts_, true);
    exchange.WaitCounts();
    exchange.Dispatch({});
  }
  static constexpr ExchangeShape kShape{
      .max_rows = 1, .row_bytes = 8, .return_row_bytes = 8, .num_experts = 2, .num_slots = 2};
  comm::LocalGroup group_;
  LocalFabrics fabrics_;
  std::vector<int32_t> counts_;
};
using CallOrderDeathTest = CallOrder;

TEST_F(CallOrderDeathTest, IsChecked) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Exchange exchange(kShape, fabrics_.rank(0), group_.rank(0));
  EXPECT_DEATH(exchange.WaitCounts(), "before PublishCounts");
  EXPECT_DEATH(exchange.Dispatch({}), "before WaitCounts");
  EXPECT_DEATH(exchange.Receive(), "before Dispatch");
  EXPECT_DEATH(exchange.Return(), "before Receive");
  EXPECT_DEATH(exchange.WaitReturns(), "before Return");
  Round(exchange);
  EXPECT_DEATH(exchange.UsePlacement({.generation = 1}), "before WaitReturns of round 0");
  exchange.Receive();
  Round(exchange);
  EXPECT_DEATH(exchange.Receive(), "before Return of round 0");
  EXPECT_DEATH(Round(exchange), "Dispatch of round 2 before WaitReturns of round 0");
  exchange.PublishCounts(counts_, true);
  EXPECT_DEATH(exchange.PublishCounts(counts_, true),
               "PublishCounts of round 3 before WaitReturns of round 0");
}

}  // namespace
}  // namespace wideload::exchange
