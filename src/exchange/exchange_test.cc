// One rank by hand; layouts of many ranks are in tests/ranks.
#include "exchange/exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "comm/local/local_communicator.h"
#include "exchange/local_fabric.h"
#include "exchange/send_plan.h"

namespace {
std::atomic<int64_t> num_allocations = 0;
}  // namespace

// Counts allocations of the whole program; who compares counts uses one thread.
[[gnu::noinline]] void* operator new(size_t size) {
  ++num_allocations;
  void* memory = std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace wideload::exchange {
namespace {

constexpr ExchangeShape kShape{.num_ranks = 1,
                               .max_rows = 4,
                               .top_k = 2,
                               .row_bytes = 8,
                               .return_row_bytes = 8,
                               .num_experts = 3,
                               .num_slots = 3,
                               .num_buffers = 2};

class OneRank : public testing::Test {
 protected:
  OneRank()
      : group_(1, {}),
        fabrics_(1, SegmentBytes(kShape)),
        exchange_(kShape, fabrics_.rank(0), group_.rank(0)) {}

  // Results are the row plus 100 times the slot.
  void Round(std::span<const uint64_t> rows, std::span<const int32_t> slots) {
    exchange_.PublishCounts(counts_, false);
    EXPECT_FALSE(exchange_.WaitCounts().more);
    exchange_.Dispatch({.rows = std::as_bytes(rows).data(),
                        .row_stride = 8,
                        .num_tokens = static_cast<int64_t>(rows.size()),
                        .slots = slots});
    uint64_t slot = 0;
    for (const Exchange::SlotRows& received : exchange_.Receive()) {
      for (size_t i = 0; i < received.x_rows.size(); ++i) {
        uint64_t x = 0;
        std::memcpy(&x, received.x_rows[i], 8);
        x += slot * 100;
        std::memcpy(received.y_rows[i], &x, 8);
      }
      ++slot;
    }
    exchange_.Return();
  }

  comm::LocalGroup group_;
  LocalFabrics fabrics_;
  Exchange exchange_;
  std::array<int32_t, 3> counts_{};
};

TEST_F(OneRank, ReturnsOneRowPerPairAndNullForNoSlot) {
  const std::array<uint64_t, 2> rows = {7, 9};
  const std::array<int32_t, 4> slots = {2, 0, -1, 2};
  Round(rows, slots);
  const auto returns = exchange_.WaitReturns();
  ASSERT_EQ(returns.size(), 4U);
  EXPECT_EQ(*reinterpret_cast<const uint64_t*>(returns[0]), 207U);
  EXPECT_EQ(*reinterpret_cast<const uint64_t*>(returns[1]), 7U);
  EXPECT_EQ(returns[2], nullptr);
  EXPECT_EQ(*reinterpret_cast<const uint64_t*>(returns[3]), 209U);
}

TEST_F(OneRank, WritesAHeaderThatTellsWhatTheSegmentIs) {
  SegmentHeader header;
  std::memcpy(&header, fabrics_.rank(0).Local(0), sizeof(header));
  EXPECT_EQ(header.magic, kSegmentMagic);
  EXPECT_EQ(header.version, kLayoutVersion);
  EXPECT_EQ(header.rank, 0);
  EXPECT_EQ(header.fingerprint, Fingerprint(kShape));
}

TEST_F(OneRank, ReadsItsOwnRowsWhereTheyAre) {
  const std::array<uint64_t, 4> rows = {7, 8, 9, 10};
  const std::array<int32_t, 4> slots = {2, -1, 0, 2};
  exchange_.PublishCounts(counts_, false);
  exchange_.WaitCounts();
  exchange_.Dispatch({.rows = std::as_bytes(std::span(rows)).data(),
                      .row_stride = 16,
                      .num_tokens = 2,
                      .slots = slots});
  const auto received = exchange_.Receive();
  const auto at = [&](size_t row) { return std::as_bytes(std::span(rows)).data() + row * 16; };
  ASSERT_EQ(received[0].x_rows.size(), 1U);
  EXPECT_EQ(received[0].x_rows[0], at(1));
  ASSERT_EQ(received[2].x_rows.size(), 2U);
  EXPECT_EQ(received[2].x_rows[0], at(0));
  EXPECT_EQ(received[2].x_rows[1], at(1));
}

TEST_F(OneRank, AllocatesNothingPerRound) {
  const std::array<uint64_t, 4> rows = {7, 9, 11, 13};
  const std::array<int32_t, 8> slots = {2, 0, -1, 2, 1, 1, 0, 2};
  const int64_t before = num_allocations;
  for (size_t round = 0; round < 10; ++round) {
    const size_t n = round % 5;
    Round(std::span(rows).first(n), std::span(slots).first(2 * n));
    exchange_.WaitReturns();
  }
  EXPECT_EQ(num_allocations - before, 0);
}

// Notes the cells of calls, as "expect" and "signal", and passes them on.
class NotedFabric final : public Fabric {
 public:
  NotedFabric(Fabric& inner, std::vector<std::pair<std::string, int64_t>>& calls)
      : inner_(inner), calls_(calls) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  int64_t segment_bytes() const override { return inner_.segment_bytes(); }
  std::byte* Window(int dst, int64_t offset) const override { return inner_.Window(dst, offset); }
  bool IsReachable(int dst) const override { return inner_.IsReachable(dst); }
  void Signal(int dst, const Message& message) override {
    calls_.emplace_back("signal", message.cell);
    inner_.Signal(dst, message);
  }
  void Expect(int source, const Message& message) override {
    calls_.emplace_back("expect", message.cell);
    inner_.Expect(source, message);
  }
  bool Test(int64_t cell, uint32_t tag) override { return inner_.Test(cell, tag); }
  bool Wait(int64_t cell, uint32_t tag, FunctionRef<bool()> keep_waiting) override {
    return inner_.Wait(cell, tag, keep_waiting);
  }

 private:
  Fabric& inner_;
  std::vector<std::pair<std::string, int64_t>>& calls_;
};

TEST(Exchange, ExpectsLargeMessagesOnceItsOwnHaveLeft) {
  comm::LocalGroup group(1, {});
  LocalFabrics fabrics(1, SegmentBytes(kShape));
  std::vector<std::pair<std::string, int64_t>> calls;
  NotedFabric fabric(fabrics.rank(0), calls);
  Exchange exchange(kShape, fabric, group.rank(0));
  const ExchangeLayout layout(kShape);
  const std::array<int32_t, 3> counts{};
  exchange.PublishCounts(counts, false);
  exchange.WaitCounts();
  calls.clear();
  exchange.Dispatch({});
  const int64_t rows = layout.RegionCell(0, 0);
  EXPECT_THAT(calls,
              testing::ElementsAre(testing::Pair("signal", rows), testing::Pair("expect", rows)));
  exchange.Receive();
  calls.clear();
  exchange.Return();
  const int64_t results = layout.ReturnCell(0, 0);
  EXPECT_THAT(calls, testing::ElementsAre(testing::Pair("signal", results),
                                          testing::Pair("expect", results)));
}

TEST(SendPlan, SendsATokenOncePerRankAndCountsItsPairs) {
  const ExchangeShape shape{.num_ranks = 2,
                            .max_rows = 3,
                            .top_k = 3,
                            .row_bytes = 8,
                            .return_row_bytes = 8,
                            .num_experts = 4,
                            .num_slots = 4};
  SendPlan plan(shape);
  // Rank 0 owns slots 0 and 1.
  const std::vector<int32_t> slots = {0, 1, 2, /**/ 3, -1, 2, /**/ 1, 3, 0};
  plan.Make(3, slots);
  EXPECT_EQ(std::vector<int32_t>(plan.TokensTo(0).begin(), plan.TokensTo(0).end()),
            (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(std::vector<int32_t>(plan.TokensTo(1).begin(), plan.TokensTo(1).end()),
            (std::vector<int32_t>{0, 1, 2}));
  EXPECT_EQ(plan.NumPairs(0), 4);
  EXPECT_EQ(plan.NumPairs(1), 4);
  EXPECT_EQ(plan.comb_offset(1), 4);
  std::vector<int32_t> indices;
  for (int64_t i = 0; i < 9; ++i) indices.push_back(plan.ReturnIndex(i));
  EXPECT_EQ(indices, (std::vector<int32_t>{0, 1, 4, 5, -1, 6, 2, 7, 3}));
}

}  // namespace
}  // namespace wideload::exchange
