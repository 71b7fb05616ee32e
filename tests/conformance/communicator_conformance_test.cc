// What every Communicator must do. A new implementation adds itself to communicator_media.cc.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "base/wait.h"
#include "conformance/communicator_media.h"
#include "support/rank_processes.h"

namespace wideload::comm {
namespace {

class CommunicatorConformance : public testing::TestWithParam<std::tuple<size_t, int>> {
 protected:
  void SetUp() override {
    if (num_ranks() > medium().max_ranks)
      GTEST_SKIP() << medium().name << " has " << medium().max_ranks << " ranks";
  }
  const CommunicatorMedium& medium() const { return CommunicatorMedia()[std::get<0>(GetParam())]; }
  int num_ranks() const { return std::get<1>(GetParam()); }
  RankOutcome Run(std::function<void(Communicator&)> body, GroupOptions options = {}) const {
    return medium().run(num_ranks(), std::move(options), std::move(body));
  }
};

INSTANTIATE_TEST_SUITE_P(Media, CommunicatorConformance,
                         testing::Combine(testing::Range<size_t>(0, CommunicatorMedia().size()),
                                          testing::Values(1, 2, 3, 5, 8, 16)),
                         [](const auto& test) {
                           return CommunicatorMedia()[std::get<0>(test.param)].name + "_" +
                                  std::to_string(std::get<1>(test.param)) + "ranks";
                         });

TEST_P(CommunicatorConformance, GivesEveryRankItsNumber) {
  const SharedCounter seen;
  const RankOutcome outcome = Run([&](Communicator& group) {
    EXPECT_EQ(group.size(), num_ranks());
    seen->fetch_or(1U << group.rank());
  });
  EXPECT_TRUE(outcome.ok()) << outcome.error;
  EXPECT_EQ(seen->load(), (1U << num_ranks()) - 1);
}

TEST_P(CommunicatorConformance, BarrierLetsNobodyPassBeforeAllArrived) {
  const SharedCounter arrived;
  const RankOutcome outcome = Run([&](Communicator& group) {
    for (int i = 1; i <= 50; ++i) {
      for (int skew = (group.rank() * 7 + i) % 5; skew > 0; --skew) YieldThread();
      arrived->fetch_add(1);
      group.Barrier();
      EXPECT_GE(static_cast<int>(arrived->load()), i * num_ranks());
    }
  });
  EXPECT_TRUE(outcome.ok()) << outcome.error;
}

TEST_P(CommunicatorConformance, AllGatherPutsEveryRanksBytesAtItsPlace) {
  const RankOutcome outcome = Run([&](Communicator& group) {
    for (int i = 0; i < 20; ++i) {
      std::vector<int64_t> all(static_cast<size_t>(num_ranks()), -1);
      group.AllGatherValue(int64_t{group.rank()} * 1000 + i, std::span(all));
      for (int r = 0; r < num_ranks(); ++r)
        EXPECT_EQ(all[static_cast<size_t>(r)], int64_t{r} * 1000 + i);
    }
  });
  EXPECT_TRUE(outcome.ok()) << outcome.error;
}

TEST_P(CommunicatorConformance, AllGatherOfNothingReturns) {
  const RankOutcome outcome = Run([](Communicator& group) { group.AllGather({}, {}); });
  EXPECT_TRUE(outcome.ok()) << outcome.error;
}

TEST_P(CommunicatorConformance, AllGatherVKeepsPiecesOfAnyLength) {
  const RankOutcome outcome = Run([&](Communicator& group) {
    std::vector<std::byte> all;
    std::vector<int64_t> offsets;
    for (int i = 0; i < 6; ++i) {
      const auto length = [&](int r) { return static_cast<size_t>((r * 5 + i * 3) % 7); };
      const std::vector<std::byte> mine(length(group.rank()), std::byte(group.rank() + i));
      group.AllGatherV(mine, all, offsets);
      ASSERT_EQ(offsets.size(), static_cast<size_t>(num_ranks()) + 1);
      for (int r = 0; r < num_ranks(); ++r) {
        const auto begin = offsets[static_cast<size_t>(r)];
        ASSERT_EQ(offsets[static_cast<size_t>(r) + 1] - begin, static_cast<int64_t>(length(r)));
        for (size_t b = 0; b < length(r); ++b)
          EXPECT_EQ(all[static_cast<size_t>(begin) + b], std::byte(r + i));
      }
    }
  });
  EXPECT_TRUE(outcome.ok()) << outcome.error;
}

// Byte `i` of row `row`, as its owner fills it in.
std::byte ColumnByte(int64_t row, int64_t i, int round) {
  return static_cast<std::byte>(row * 31 + int64_t{7} * i + int64_t{13} * round + 1);
}

// Rows of 3 bytes more than the columns; rank r has (r + 1) widest / 3 % (widest + 1) elements.
// `data` stays until the next collective.
void GatherAndCheck(Communicator& group, int64_t rows, int64_t widest, int round,
                    std::vector<std::byte>& data) {
  std::vector<int64_t> ends;
  for (int r = 0; r < group.size(); ++r)
    ends.push_back((ends.empty() ? 0 : ends.back()) + (r + 1) * widest / 3 % (widest + 1));
  const int64_t width = ends.back() * 2;
  data.assign(static_cast<size_t>(rows * (width + 3)), std::byte{255});
  const ColumnBlock block{.data = data.data(),
                          .num_rows = rows,
                          .row_stride_bytes = width + 3,
                          .element_bytes = 2,
                          .ends = ends};
  const auto byte_at = [&](int64_t row, int64_t i) -> std::byte& {
    return data[static_cast<size_t>(row * (width + 3) + i)];
  };
  const int64_t begin = block.Begin(group.rank());
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = begin; i < begin + block.Width(group.rank()); ++i)
      byte_at(row, i) = ColumnByte(row, i, round);
  group.AllGatherColumns(block);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < width; ++i)
      ASSERT_EQ(byte_at(row, i), ColumnByte(row, i, round)) << "row " << row << ", byte " << i;
    for (int64_t i = width; i < width + 3; ++i) ASSERT_EQ(byte_at(row, i), std::byte{255});
  }
}

TEST_P(CommunicatorConformance, AllGatherColumnsGivesEveryRankWholeRows) {
  const RankOutcome outcome = Run([](Communicator& group) {
    std::vector<std::byte> data[2];
    for (int round = 0; round < 6; ++round) {
      GatherAndCheck(group, round, 5, round, data[round % 2]);
      if (round == 3) group.AllGather({}, {});
    }
    GatherAndCheck(group, 3, 50'000, 6, data[0]);  // longer than a mailbox
    std::vector<int32_t> after(1, group.rank());
    group.Broadcast(std::as_writable_bytes(std::span(after)), 0);
    EXPECT_EQ(after[0], 0);
  });
  EXPECT_TRUE(outcome.ok()) << outcome.error;
}

// Rank r gets (round + 3 r) * scale bytes from each rank: its own are of another length than
// others'.
void SwapAndCheck(Communicator& group, int round, int64_t scale) {
  std::vector<int64_t> ends;
  for (int r = 0; r < group.size(); ++r)
    ends.push_back((r == 0 ? 0 : ends.back()) + (round + 3 * r) * scale);
  const auto byte_of = [&](int from, int to, int64_t i) {
    return static_cast<std::byte>(31 * from + 7 * to + round + i);
  };
  std::vector<std::byte> mine(static_cast<size_t>(ends.back()));
  for (int to = 0; to < group.size(); ++to) {
    const PieceOfRank piece(ends, to);
    for (size_t i = 0; i < piece.size; ++i)
      mine[piece.begin + i] = byte_of(group.rank(), to, static_cast<int64_t>(i));
  }
  const PieceOfRank own(ends, group.rank());
  std::vector<std::byte> all(own.size * static_cast<size_t>(group.size()));
  group.AllToAll(mine, ends, all);
  std::ranges::fill(mine, std::byte{0});  // all have read it
  for (int from = 0; from < group.size(); ++from)
    for (size_t i = 0; i < own.size; ++i)
      ASSERT_EQ(all[static_cast<size_t>(from) * own.size + i],
                byte_of(from, group.rank(), static_cast<int64_t>(i)))
          << "byte " << i << " of rank " << from;
}

TEST_P(CommunicatorConformance, AllToAllGivesEveryRankItsPieceOfEachRanksBytes) {
  const RankOutcome outcome = Run([](Communicator& group) {
    std::vector<std::byte> data;
    for (int round = 0; round < 4; ++round) {
      SwapAndCheck(group, round, 1);
      GatherAndCheck(group, round, 3, round, data);
    }
    SwapAndCheck(group, 1, 100'000);  // longer than a mailbox
  });
  EXPECT_TRUE(outcome.ok()) << outcome.error;
}

// Neighbours, the last of them perhaps alone.
std::shared_ptr<Communicator> MakePairs(Communicator& group) {
  const int first = group.rank() / 2 * 2;
  return group.MakePart({.first = first, .num_ranks = std::min(2, group.size() - first)});
}

TEST_P(CommunicatorConformance, APartIsAGroupOfItsOwn) {
  const RankOutcome outcome = Run([](Communicator& group) {
    for (int time = 0; time < 2; ++time) {
      const std::shared_ptr<Communicator> part = MakePairs(group);
      EXPECT_EQ(part->rank(), group.rank() % 2);
      EXPECT_EQ(part->whole(), &group);
      // As often as this part likes.
      for (int round = 0; round < 1 + group.rank() / 2; ++round) {
        std::vector<int> all(static_cast<size_t>(part->size()), -1);
        part->AllGatherValue(group.rank(), std::span(all));
        for (size_t r = 0; r < all.size(); ++r)
          EXPECT_EQ(all[r], part->RankInWhole(static_cast<int>(r)));
        std::vector<std::byte> data;
        GatherAndCheck(*part, 2, 9, round, data);
        part->Barrier();
      }
      group.Barrier();
    }
  });
  EXPECT_TRUE(outcome.ok()) << outcome.error;
}

TEST_P(CommunicatorConformance, APartMayTakeEveryOtherRank) {
  const RankOutcome outcome = Run([](Communicator& group) {
    const int first = group.rank() % 2;
    const std::shared_ptr<Communicator> part =
        group.MakePart({.first = first, .num_ranks = (group.size() - first + 1) / 2, .stride = 2});
    EXPECT_EQ(part->rank(), group.rank() / 2);
    std::vector<int> all(static_cast<size_t>(part->size()), -1);
    part->AllGatherValue(group.rank(), std::span(all));
    for (size_t r = 0; r < all.size(); ++r) {
      EXPECT_EQ(all[r], first + 2 * static_cast<int>(r));
      EXPECT_EQ(all[r], part->RankInWhole(static_cast<int>(r)));
    }
    std::vector<std::byte> data;
    GatherAndCheck(*part, 3, 9, 1, data);
    group.Barrier();
  });
  EXPECT_TRUE(outcome.ok()) << outcome.error;
}

TEST_P(CommunicatorConformance, TheEndOfAGroupEndsTheWaitsOfItsParts) {
  if (num_ranks() < 3) GTEST_SKIP() << "there is one part";
  const SharedCounter num_told;
  const RankOutcome outcome = Run([&](Communicator& group) {
    group.SetWhere({.iteration = 4});
    const std::shared_ptr<Communicator> part = MakePairs(group);
    group.Barrier();
    if (group.rank() == 2) return part->Abort("the disk is full");
    // A rank that had gone before would be called dead.
    while (group.rank() != 0 && !group.Aborted())
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (group.rank() != 0) return;
    try {
      part->Barrier();
    } catch (const PeerLost& lost) {
      num_told->fetch_add(1);
      EXPECT_STREQ(lost.what(),
                   "rank 0, iteration 4: waited for the barrier of rank 1: rank 2 ended the "
                   "group: the disk is full");
    }
  });
  EXPECT_EQ(static_cast<int>(num_told->load()), 1);
}

TEST_P(CommunicatorConformance, ASilentRankOfAPartIsNamedByItsNumberInTheWhole) {
  if (num_ranks() < 4) GTEST_SKIP() << "no second part of two";
  const RankOutcome outcome = Run(
      [&](Communicator& group) {
        const std::shared_ptr<Communicator> part = MakePairs(group);
        group.Barrier();
        if (group.rank() == 2) part->Barrier();
      },
      {.deadline = std::chrono::milliseconds(200)});
  EXPECT_NE(outcome.error.find("rank 2: waited for the barrier of rank 3: "), std::string::npos)
      << outcome.error;
}

TEST_P(CommunicatorConformance, BroadcastCopiesFromAnyRoot) {
  const RankOutcome outcome = Run([&](Communicator& group) {
    for (int root = 0; root < num_ranks(); ++root) {
      std::vector<int32_t> data(33, group.rank());
      group.Broadcast(std::as_writable_bytes(std::span(data)), root);
      EXPECT_EQ(data, std::vector<int32_t>(33, root));
    }
  });
  EXPECT_TRUE(outcome.ok()) << outcome.error;
}

float Summand(int rank, size_t i) {
  return (static_cast<float>((i * 2654435761U + static_cast<size_t>(rank) * 40503U) % 10007) -
          5000.0F) /
         static_cast<float>(1 + rank * 37);
}

// ((0+1)+(2+3))+(4+5), written independently of the implementation.
float TreeSum(std::vector<float> values) {
  while (values.size() > 1) {
    std::vector<float> next;
    for (size_t r = 0; r < values.size(); r += 2)
      next.push_back(r + 1 < values.size() ? values[r] + values[r + 1] : values[r]);
    values = next;
  }
  return values[0];
}

// The sum of element `i` of `num_ranks` ranks.
float SumOf(int num_ranks, size_t i) {
  std::vector<float> values;
  for (int r = 0; r < num_ranks; ++r) values.push_back(Summand(r, i));
  return TreeSum(values);
}

TEST_P(CommunicatorConformance, AllReduceSumAddsInTheFixedTreeOnEveryRank) {
  for (const size_t count : {size_t{0}, size_t{1}, size_t{7}, size_t{1000}, size_t{9001}}) {
    const RankOutcome outcome = Run([&](Communicator& group) {
      std::vector<float> data(count);
      for (int repeat = 0; repeat < 2; ++repeat) {
        for (size_t i = 0; i < count; ++i) data[i] = Summand(group.rank(), i);
        group.AllReduceSum(data);
        for (size_t i = 0; i < count; ++i)
          ASSERT_EQ(data[i], SumOf(num_ranks(), i)) << i;  // the same bits
      }
    });
    EXPECT_TRUE(outcome.ok()) << outcome.error;
  }
}

TEST_P(CommunicatorConformance, AbortEndsTheWaitsOfAllRanksWithItsReason) {
  if (num_ranks() == 1) GTEST_SKIP() << "nobody waits";
  const SharedCounter num_told;
  const RankOutcome outcome = Run([&](Communicator& group) {
    group.SetWhere({.iteration = 4, .layer = 2});
    group.Barrier();
    if (group.rank() == 1) return group.Abort("the disk is full");
    try {
      group.Barrier();
    } catch (const PeerLost& lost) {
      num_told->fetch_add(lost.details().is_told ? 1 : 0);
      EXPECT_NE(std::string(lost.what()).find("rank 1 ended the group: the disk is full"),
                std::string::npos)
          << lost.what();
      EXPECT_EQ(lost.details().where.iteration, 4);
    }
  });
  EXPECT_EQ(static_cast<int>(num_told->load()), num_ranks() - 1);
  EXPECT_TRUE(outcome.stuck_ranks.empty());
}

TEST_P(CommunicatorConformance, TheFirstReasonStays) {
  const RankOutcome outcome = Run([](Communicator& group) {
    if (group.rank() != 0) return;
    group.Abort("first");
    group.Abort("second");
    ASSERT_TRUE(group.Aborted().has_value());
    EXPECT_EQ(group.Aborted()->reason, "first");
    EXPECT_EQ(group.Aborted()->rank, 0);
  });
  EXPECT_TRUE(outcome.ok()) << outcome.error;
}

TEST_P(CommunicatorConformance, ASilentRankIsNamedWithinTheDeadline) {
  if (num_ranks() == 1) GTEST_SKIP() << "nobody waits";
  const int silent = num_ranks() - 1;
  const SharedCounter num_lost;
  const RankOutcome outcome = Run(
      [&](Communicator& group) {
        group.SetWhere({.iteration = 7, .layer = 3});
        group.Barrier();
        if (group.rank() == silent) return;
        try {
          group.Barrier();
          ADD_FAILURE() << "passed a barrier without rank " << silent;
        } catch (const PeerLost& lost) {
          num_lost->fetch_add(1);
          const std::string text = lost.what();
          EXPECT_NE(text.find(fmt::format("the barrier of rank {}", silent)), std::string::npos)
              << text;
          EXPECT_NE(text.find("iteration 7, layer 3"), std::string::npos) << text;
        }
      },
      {.deadline = std::chrono::milliseconds(200)});
  EXPECT_EQ(static_cast<int>(num_lost->load()), num_ranks() - 1);
}

TEST_P(CommunicatorConformance, ADeadRankIsNamedBeforeTheDeadline) {
  if (num_ranks() == 1) GTEST_SKIP() << "nobody waits";
  const auto has_met = std::make_shared<std::atomic<bool>>(false);  // owners: body and is_alive
  GroupOptions options{.deadline = std::chrono::hours(1),
                       .is_alive = [has_met](int r) { return r != 0 || !*has_met; }};
  const RankOutcome outcome = Run(
      [has_met](Communicator& group) {
        *has_met = true;
        if (group.rank() != 0) group.Barrier();
      },
      std::move(options));
  EXPECT_NE(outcome.error.find("of rank 0: it is dead"), std::string::npos) << outcome.error;
}

}  // namespace
}  // namespace wideload::comm
