// Rows in memory of a device that works as late as possible; layouts of many ranks are in
// tests/ranks.
#include "exchange/device_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "comm/local/rank_threads.h"
#include "device/emulated/emulated_device.h"
#include "exchange/exchange.h"
#include "exchange/local_fabric.h"
#include "exchange/testing.h"

namespace wideload::exchange {
namespace {

constexpr int64_t kRow = 8;

ExchangeShape DeviceShape(int num_ranks) {
  return {.num_ranks = num_ranks,
          .max_rows = 4,
          .top_k = 2,
          .row_bytes = kRow,
          .return_row_bytes = kRow,
          .num_experts = 2,
          .num_slots = num_ranks,
          .num_buffers = 2};
}

// Passes everything on, or leaves out the waits of one direction; counts the copies.
class TestMover final : public RowMover {
 public:
  explicit TestMover(std::unique_ptr<RowMover> inner) : inner_(std::move(inner)) {}
  const ExchangeShape& shape() const override { return inner_->shape(); }
  std::byte* Place(int dst, int64_t offset) const override { return inner_->Place(dst, offset); }
  void CopyRows(std::span<const std::byte* const> from, std::span<std::byte* const> to,
                int64_t row_bytes) override {
    num_copies += std::ssize(from);
    inner_->CopyRows(from, to, row_bytes);
  }
  void Record(Direction direction, int64_t round) override {
    ++num_marks;
    inner_->Record(direction, round);
  }
  void WaitFor(int source, Direction direction, int64_t round) override {
    ++num_waits;
    if (direction != left_out) inner_->WaitFor(source, direction, round);
  }

  int64_t num_copies = 0;
  int64_t num_marks = 0;
  int64_t num_waits = 0;
  std::optional<Direction> left_out;

 private:
  std::unique_ptr<RowMover> inner_;
};

// Rank r has rows of the numbers 10 r + 1, 10 r + 2, ..., which slots give back as they are.
class DeviceRank {
 public:
  DeviceRank(DeviceRows& rows, device::Device& device, Fabric& fabric, comm::Communicator& group)
      : rank_(group.rank()),
        stream_(device.MakeStream()),
        x_(device.Allocate(DeviceShape(1).max_rows * kRow)),
        mover_(rows.MoverOf(group.rank(), *stream_)),
        exchange_(DeviceShape(group.size()), fabric, group, nullptr, &mover_) {}

  // A row for each two slots.
  void Dispatch(const std::vector<int32_t>& slots) {
    exchange_.PublishCounts(std::vector<int32_t>(2), false);
    exchange_.WaitCounts();
    std::vector<uint64_t> values;
    while (values.size() * 2 < slots.size())
      values.push_back(static_cast<uint64_t>(10 * rank_ + 1) + values.size());
    const auto num_tokens = std::ssize(values);
    stream_->Copy(x_.data(), stream_->Upload(std::span<const uint64_t>(values)), num_tokens * kRow);
    exchange_.Dispatch(
        {.rows = x_.data(), .row_stride = kRow, .num_tokens = num_tokens, .slots = slots});
  }

  std::vector<const std::byte*> Receive() {
    const auto received = exchange_.Receive();
    return {received[0].x_rows.begin(), received[0].x_rows.end()};
  }
  void Answer() {
    const std::span<const Exchange::SlotRows> received = exchange_.Receive();
    for (size_t i = 0; i < received[0].x_rows.size(); ++i)
      stream_->Copy(received[0].y_rows[i], received[0].x_rows[i], kRow);
    exchange_.Return();
  }
  std::vector<const std::byte*> WaitReturns() {
    const auto returned = exchange_.WaitReturns();
    return {returned.begin(), returned.end()};
  }

  // What the rows hold once this rank's stream has come so far; 0 for none.
  std::vector<uint64_t> Read(const std::vector<const std::byte*>& rows) {
    std::vector<uint64_t> values(rows.size());
    for (size_t i = 0; i < rows.size(); ++i)
      if (rows[i] != nullptr) stream_->Copy(&values[i], rows[i], kRow);
    stream_->Synchronize();
    return values;
  }

  const std::byte* x(int64_t token) const { return x_.data() + token * kRow; }
  TestMover& mover() { return mover_; }
  Exchange& exchange() { return exchange_; }

 private:
  int rank_;
  std::unique_ptr<device::Stream> stream_;
  device::Memory x_;
  TestMover mover_;
  Exchange exchange_;
};

// Ranks of one device as threads. Nobody's stream is waited for before the body says so: the ranks
// end together.
void RunOnDevice(int num_ranks, const std::function<void(DeviceRank&, comm::Communicator&)>& body) {
  comm::LocalGroup group(num_ranks, {});
  LocalFabrics fabrics(num_ranks, SegmentBytes(DeviceShape(num_ranks)));
  const std::unique_ptr<device::Device> device = device::MakeEmulatedDevice(int64_t{64} << 20);
  const std::vector<device::Device*> devices(static_cast<size_t>(num_ranks), device.get());
  DeviceRows rows(DeviceShape(num_ranks), devices, TestCopyRows);
  const auto outcome = comm::RunRanks(group, [&](comm::Communicator& communicator) {
    DeviceRank rank(rows, *device, fabrics.rank(communicator.rank()), communicator);
    body(rank, communicator);
    communicator.Barrier();
  });
  EXPECT_TRUE(outcome.ok()) << outcome.error;
}

TEST(DeviceRows, OwnRowsAreReadWhereTheyAreAndOthersAreCopiedOnce) {
  RunOnDevice(2, [](DeviceRank& rank, comm::Communicator& group) {
    // Slot s is rank s's.
    rank.Dispatch(group.rank() == 0 ? std::vector<int32_t>{0, -1, 1, 1, 0, 1}
                                    : std::vector<int32_t>{});
    const auto x_rows = rank.Receive();
    if (group.rank() == 0) {
      EXPECT_THAT(x_rows, testing::ElementsAre(rank.x(0), rank.x(2)));
      EXPECT_EQ(rank.mover().num_copies, 2);
    } else {
      EXPECT_THAT(rank.Read(x_rows), testing::ElementsAre(2, 2, 3));
      EXPECT_EQ(rank.mover().num_copies, 0);
    }
  });
}

TEST(DeviceRows, ComeBackToTheEntriesTheyAreOf) {
  RunOnDevice(3, [](DeviceRank& rank, comm::Communicator& group) {
    const auto first = static_cast<uint64_t>(10 * group.rank() + 1);
    for (int round = 0; round < 5; ++round) {
      rank.Dispatch({0, 2, -1, 1, 2, 2});
      rank.Answer();
      EXPECT_THAT(rank.Read(rank.WaitReturns()),
                  testing::ElementsAre(first, first, 0, first + 1, first + 2, first + 2));
    }
  });
}

TEST(DeviceRows, NobodyWaitsForRanksThatHaveSentNothing) {
  RunOnDevice(2, [](DeviceRank& rank, comm::Communicator& group) {
    rank.Dispatch(group.rank() == 0 ? std::vector<int32_t>{0, 1} : std::vector<int32_t>{});
    rank.Answer();
    rank.WaitReturns();
    EXPECT_EQ(rank.mover().num_marks, 1);
    EXPECT_EQ(rank.mover().num_waits, 1);
  });
}

// Rank 0 sends a row to rank 1 and gets it back.
TEST(DeviceRows, AWaitThatIsLeftOutIsSeen) {
  for (const auto left_out : {std::optional<Direction>(), std::optional(Direction::kOut)}) {
    RunOnDevice(2, [left_out](DeviceRank& rank, comm::Communicator& group) {
      rank.mover().left_out = left_out;
      rank.Dispatch(group.rank() == 0 ? std::vector<int32_t>{1, -1} : std::vector<int32_t>{});
      if (group.rank() != 1) return;
      EXPECT_EQ(rank.Read(rank.Receive())[0], left_out ? 0U : 1U);
    });
  }
  for (const auto left_out : {std::optional<Direction>(), std::optional(Direction::kBack)}) {
    RunOnDevice(2, [left_out](DeviceRank& rank, comm::Communicator& group) {
      rank.mover().left_out = left_out;
      rank.Dispatch(group.rank() == 0 ? std::vector<int32_t>{1, -1} : std::vector<int32_t>{});
      rank.Answer();
      if (group.rank() != 0) return;
      EXPECT_EQ(rank.Read(rank.WaitReturns())[0], left_out ? 0U : 1U);
    });
  }
}

// A fabric of ranks that are elsewhere.
class FarFabric final : public Fabric {
 public:
  explicit FarFabric(Fabric& inner) : inner_(inner) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  int64_t segment_bytes() const override { return inner_.segment_bytes(); }
  std::byte* Window(int dst, int64_t offset) const override { return inner_.Window(dst, offset); }
  bool IsReachable(int dst) const override { return dst == rank(); }
  void Signal(int dst, const Message& message) override { inner_.Signal(dst, message); }
  void Expect(int source, const Message& message) override { inner_.Expect(source, message); }
  bool Test(int64_t cell, uint32_t tag) override { return inner_.Test(cell, tag); }
  bool Wait(int64_t cell, uint32_t tag, FunctionRef<bool()> keep_waiting) override {
    return inner_.Wait(cell, tag, keep_waiting);
  }

 private:
  Fabric& inner_;
};

// What two ranks say when they begin an exchange, the second of them perhaps without a device.
struct Begin {
  bool is_free = false;
  bool is_far = false;
  bool is_second_on_host = false;
};
std::string ErrorOf(const Begin& begin) {
  ExchangeShape shape = DeviceShape(2);
  shape.is_free = begin.is_free;
  comm::LocalGroup group(2, {});
  LocalFabrics fabrics(2, SegmentBytes(shape));
  const std::unique_ptr<device::Device> device = device::MakeEmulatedDevice(int64_t{1} << 20);
  const std::vector<device::Device*> devices(2, device.get());
  DeviceRows rows(shape, devices, TestCopyRows);
  const auto outcome = comm::RunRanks(group, [&](comm::Communicator& communicator) {
    const std::unique_ptr<device::Stream> stream = device->MakeStream();
    const std::unique_ptr<RowMover> mover = rows.MoverOf(communicator.rank(), *stream);
    FarFabric far(fabrics.rank(communicator.rank()));
    Fabric& fabric = begin.is_far ? far : fabrics.rank(communicator.rank());
    const bool is_on_host = begin.is_second_on_host && communicator.rank() == 1;
    const Exchange exchange(shape, fabric, communicator, nullptr,
                            is_on_host ? nullptr : mover.get());
  });
  return outcome.error;
}

TEST(DeviceRows, WhatRanksOfDevicesCannotDoIsRefusedByName) {
  EXPECT_THAT(ErrorOf({.is_free = true}), testing::HasSubstr("is_free is 1 (microbatch mode)"));
  EXPECT_THAT(ErrorOf({.is_far = true}), testing::HasSubstr("is on another host"));
  EXPECT_THAT(ErrorOf({.is_second_on_host = true}),
              testing::HasSubstr("of a device on rank 0 and of the host on rank 1"));
  EXPECT_EQ(ErrorOf({}), "");
}

}  // namespace
}  // namespace wideload::exchange
