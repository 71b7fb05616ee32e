#include "runtime/processes/message_channel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/error.h"
#include "comm/local/local_communicator.h"
#include "comm/local/rank_threads.h"
#include "exchange/local_fabric.h"

namespace wideload::runtime {
namespace {

using Patience = MessageChannel::Patience;

std::vector<std::byte> Pattern(size_t size, size_t seed) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 131 + seed + i / 251);
  return bytes;
}

std::vector<std::byte> Copy(std::span<const std::byte> bytes) {
  return {bytes.begin(), bytes.end()};
}

comm::RankOutcome RunRanks(int num_ranks, const comm::GroupOptions& options,
                           const std::function<void(comm::Communicator&)>& body) {
  comm::LocalGroup group(num_ranks, options);
  return comm::RunRanks(group, body);
}

constexpr size_t kSizes[] = {0, 1, 100, 4087, 4088, 4089, 32 << 10, 100'000, 1, 300'001};

TEST(MessageChannel, CarriesMessagesOfAnySizeBothWays) {
  constexpr int kRanks = 3;
  exchange::LocalFabrics fabrics(kRanks, MessageChannel::SegmentBytes(kRanks));
  const auto outcome = RunRanks(kRanks, {}, [&](comm::Communicator& group) {
    MessageChannel channel(fabrics.rank(group.rank()), group);
    for (size_t i = 0; i < std::size(kSizes); ++i) {
      if (group.rank() == 0) {
        for (const int peer : {1, 2})
          channel.Send(peer, Pattern(kSizes[i], i + static_cast<size_t>(peer)));
        for (const int peer : {1, 2})
          EXPECT_EQ(Copy(channel.Receive(peer, Patience::kDeadline, "an answer")),
                    Pattern(kSizes[i] / 2, i + 10 * static_cast<size_t>(peer)));
      } else {
        const auto rank = static_cast<size_t>(group.rank());
        EXPECT_EQ(Copy(channel.Receive(0, Patience::kWhileAlive, "an order")),
                  Pattern(kSizes[i], i + rank));
        channel.Send(0, Pattern(kSizes[i] / 2, i + 10 * rank));
      }
    }
  });
  EXPECT_EQ(outcome.error, "");
}

TEST(MessageChannel, WaitsForAnOrderLongerThanTheDeadline) {
  exchange::LocalFabrics fabrics(2, MessageChannel::SegmentBytes(2));
  const comm::GroupOptions options{.deadline = std::chrono::milliseconds(50)};
  const auto outcome = RunRanks(2, options, [&](comm::Communicator& group) {
    MessageChannel channel(fabrics.rank(group.rank()), group);
    if (group.rank() == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      channel.Send(1, Pattern(8, 1));
    } else {
      EXPECT_EQ(channel.Receive(0, Patience::kWhileAlive, "an order").size(), 8);
    }
  });
  EXPECT_EQ(outcome.error, "");
}

TEST(MessageChannel, NamesWhoOwesAnAnswerAfterTheDeadline) {
  exchange::LocalFabrics fabrics(2, MessageChannel::SegmentBytes(2));
  const comm::GroupOptions options{.deadline = std::chrono::milliseconds(50)};
  const auto outcome = RunRanks(2, options, [&](comm::Communicator& group) {
    MessageChannel channel(fabrics.rank(group.rank()), group);
    group.SetWhere({.iteration = 7});
    channel.Receive(1 - group.rank(),
                    group.rank() == 0 ? Patience::kDeadline : Patience::kWhileAlive, "the outputs");
  });
  EXPECT_THAT(outcome.error,
              testing::AllOf(testing::HasSubstr("rank 0"), testing::HasSubstr("iteration 7"),
                             testing::HasSubstr("the outputs of rank 1")));
}

TEST(MessageChannel, EndsAPatientWaitWhenAnyRankIsDead) {
  constexpr int kRanks = 3;
  exchange::LocalFabrics fabrics(kRanks, MessageChannel::SegmentBytes(kRanks));
  comm::GroupOptions options;
  options.is_alive = [](int rank) { return rank != 2; };
  const auto outcome = RunRanks(kRanks, options, [&](comm::Communicator& group) {
    if (group.rank() != 1) return;
    MessageChannel channel(fabrics.rank(group.rank()), group);
    channel.Receive(0, Patience::kWhileAlive, "the next order");
  });
  EXPECT_THAT(outcome.error, testing::HasSubstr("rank 2 is dead"));
}

}  // namespace
}  // namespace wideload::runtime
