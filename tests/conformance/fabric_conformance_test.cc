// What every Fabric must do. A new implementation adds a factory to kMedia.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "exchange/fabric.h"
#include "exchange/local_fabric.h"
#include "exchange/shm_fabric.h"
#include "support/rank_processes.h"

namespace wideload::exchange {
namespace {

struct Medium {
  std::string name;
  // Runs body on every rank, each with its fabric over fresh zero-filled segments.
  std::function<void(int num_ranks, int64_t segment_bytes, std::function<void(Fabric&)>)> run;
};

void RunLocal(int num_ranks, int64_t segment_bytes, std::function<void(Fabric&)> body) {
  LocalFabrics fabrics(num_ranks, segment_bytes);
  std::vector<std::jthread> threads;
  for (int r = 0; r < num_ranks; ++r) threads.emplace_back([&, r] { body(fabrics.rank(r)); });
}

void RunShm(int num_ranks, int64_t segment_bytes, std::function<void(Fabric&)> body) {
  const std::string job = FreshJobName();
  const auto outcome = RunRankProcesses(num_ranks, {}, job, [&](comm::Communicator& group) {
    ShmFabric fabric(group, segment_bytes, job);
    body(fabric);
  });
  EXPECT_TRUE(outcome.ranks.ok()) << outcome.ranks.error;
}

const std::vector<Medium> kMedia = {{"local", RunLocal}, {"shm", RunShm}};

// Segments of these tests: two 128-byte flag lines per source (data, answer), then one piece per
// source.
constexpr int64_t kLine = 128;
constexpr int64_t kPiece = 6000;

class FabricConformance : public testing::TestWithParam<std::tuple<size_t, int>> {
 protected:
  int num_ranks() const { return std::get<1>(GetParam()); }
  int64_t AnswerOf(int source) const { return kLine * (num_ranks() + source); }
  int64_t PieceOf(int source) const { return kLine * 2 * num_ranks() + source * kPiece; }
  void Run(std::function<void(Fabric&)> body) const {
    kMedia[std::get<0>(GetParam())].run(num_ranks(), PieceOf(num_ranks()), std::move(body));
  }
  void Send(Fabric& fabric, int dst, uint32_t tag, int64_t num_bytes) const {
    const int64_t offset = PieceOf(fabric.rank());
    for (int64_t i = 0; i < num_bytes; ++i)
      *fabric.Window(dst, offset + i) = std::byte((fabric.rank() + i + tag) & 0xFF);
    fabric.Signal(dst, {.cell = kLine * fabric.rank(),
                        .tag = tag,
                        .payload_offset = offset,
                        .payload_bytes = num_bytes});
  }
  void Expect(Fabric& fabric, int source, uint32_t tag, int64_t num_bytes) const {
    ASSERT_TRUE(fabric.Wait(kLine * source, tag, [] { return true; }));
    for (int64_t i = 0; i < num_bytes; ++i)
      ASSERT_EQ(*fabric.Local(PieceOf(source) + i), std::byte((source + i + tag) & 0xFF)) << i;
  }
};

INSTANTIATE_TEST_SUITE_P(Media, FabricConformance,
                         testing::Combine(testing::Range<size_t>(0, kMedia.size()),
                                          testing::Values(1, 2, 5, 8)),
                         [](const auto& test) {
                           return kMedia[std::get<0>(test.param)].name + "_" +
                                  std::to_string(std::get<1>(test.param)) + "ranks";
                         });

TEST_P(FabricConformance, KnowsItsPlaceAndAlignsItsWindows) {
  Run([&](Fabric& fabric) {
    EXPECT_EQ(fabric.size(), num_ranks());
    EXPECT_GE(fabric.segment_bytes(), PieceOf(num_ranks()));
    for (int dst = 0; dst < num_ranks(); ++dst) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(fabric.Window(dst, 0)) % 128, 0U);
      EXPECT_EQ(fabric.Window(dst, 384), fabric.Window(dst, 0) + 384);
    }
    EXPECT_TRUE(fabric.IsReachable(fabric.rank()));
  });
}

TEST_P(FabricConformance, AWaitSeesAllBytesAnnouncedWithItsTag) {
  Run([&](Fabric& fabric) {
    for (uint32_t tag = 1; tag <= 200; ++tag) {
      const auto num_bytes = static_cast<int64_t>(tag * 29 % kPiece);
      for (int i = 0; i < num_ranks(); ++i)
        Send(fabric, (fabric.rank() + i) % num_ranks(), tag, num_bytes);
      for (int source = 0; source < num_ranks(); ++source) Expect(fabric, source, tag, num_bytes);
      // A source changes its piece only after all receivers have answered.
      for (int dst = 0; dst < num_ranks(); ++dst)
        fabric.Signal(dst, {.cell = AnswerOf(fabric.rank()), .tag = tag});
      for (int source = 0; source < num_ranks(); ++source)
        ASSERT_TRUE(fabric.Wait(AnswerOf(source), tag, [] { return true; }));
      if (tag % 16 == 0) std::this_thread::yield();
    }
  });
}

TEST_P(FabricConformance, TestIsFalseForAnyOtherTag) {
  Run([&](Fabric& fabric) {
    const int self = fabric.rank();
    EXPECT_FALSE(fabric.Test(kLine * self, 0xFFFFFFFF));
    Send(fabric, self, 0xFFFFFFFF, 8);
    Expect(fabric, self, 0xFFFFFFFF, 8);
    EXPECT_TRUE(fabric.Test(kLine * self, 0xFFFFFFFF));
    EXPECT_FALSE(fabric.Test(kLine * self, 0));
  });
}

TEST_P(FabricConformance, AWaitEndsWhenItIsToldTo) {
  Run([&](Fabric& fabric) {
    int num_asked = 0;
    EXPECT_FALSE(fabric.Wait(kLine * fabric.rank(), 77, [&] { return ++num_asked < 3; }));
    EXPECT_EQ(num_asked, 3);
  });
}

}  // namespace
}  // namespace wideload::exchange
