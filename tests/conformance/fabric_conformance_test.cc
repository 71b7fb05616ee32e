// What every Fabric must do. A new implementation adds itself to fabric_media.cc.
#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "conformance/fabric_media.h"

namespace wideload::exchange {
namespace {

// Segments of these tests: two 128-byte flag lines per source (data, answer), then one piece per
// source.
constexpr int64_t kLine = 128;
constexpr int64_t kPiece = 6000;
// More than any MPI sends before the receiver has agreed.
constexpr int64_t kLargePiece = 1'500'000;

class FabricConformance : public testing::TestWithParam<std::tuple<size_t, int>> {
 protected:
  void SetUp() override {
    if (num_ranks() > medium().max_ranks)
      GTEST_SKIP() << medium().name << " has " << medium().max_ranks << " ranks";
  }
  const FabricMedium& medium() const { return FabricMedia()[std::get<0>(GetParam())]; }
  int num_ranks() const { return std::get<1>(GetParam()); }
  int64_t AnswerOf(int source) const { return kLine * (num_ranks() + source); }
  int64_t PieceOf(int source) const { return kLine * 2 * num_ranks() + source * piece_bytes_; }
  void Run(std::function<void(Fabric&)> body) const {
    medium().run(num_ranks(), PieceOf(num_ranks()), std::move(body));
  }
  void ExpectFromAll(Fabric& fabric, uint32_t tag) const {
    for (int source = 0; source < num_ranks(); ++source)
      fabric.Expect(source, {.cell = kLine * source,
                             .tag = tag,
                             .payload_offset = PieceOf(source),
                             .payload_bytes = piece_bytes_});
  }
  // What `source` sends with `tag`.
  static std::vector<std::byte> Bytes(int source, uint32_t tag, int64_t num_bytes) {
    std::vector<std::byte> bytes(static_cast<size_t>(num_bytes));
    for (size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = std::byte((static_cast<size_t>(source) + i + i / 251 + tag) & 0xFF);
    return bytes;
  }
  void Send(Fabric& fabric, int dst, uint32_t tag, int64_t num_bytes) const {
    const int64_t offset = PieceOf(fabric.rank());
    std::ranges::copy(Bytes(fabric.rank(), tag, num_bytes), fabric.Window(dst, offset));
    fabric.Signal(dst, {.cell = kLine * fabric.rank(),
                        .tag = tag,
                        .payload_offset = offset,
                        .payload_bytes = num_bytes});
  }
  void Check(Fabric& fabric, int source, uint32_t tag, int64_t num_bytes) const {
    ASSERT_TRUE(fabric.Wait(kLine * source, tag, [] { return true; }));
    const std::vector<std::byte> expected = Bytes(source, tag, num_bytes);
    const std::byte* const found = fabric.Local(PieceOf(source));
    ASSERT_TRUE(std::equal(expected.begin(), expected.end(), found)) << "source " << source;
  }
  // A source changes its piece only after all receivers have answered.
  void AnswerAll(Fabric& fabric, uint32_t tag) const {
    for (int dst = 0; dst < num_ranks(); ++dst)
      fabric.Expect(dst, {.cell = AnswerOf(dst), .tag = tag});
    for (int dst = 0; dst < num_ranks(); ++dst)
      fabric.Signal(dst, {.cell = AnswerOf(fabric.rank()), .tag = tag});
    for (int source = 0; source < num_ranks(); ++source)
      ASSERT_TRUE(fabric.Wait(AnswerOf(source), tag, [] { return true; }));
  }
  void Round(Fabric& fabric, uint32_t tag, int64_t num_bytes) const {
    ExpectFromAll(fabric, tag);
    for (int i = 0; i < num_ranks(); ++i)
      Send(fabric, (fabric.rank() + i) % num_ranks(), tag, num_bytes);
    for (int source = 0; source < num_ranks(); ++source) Check(fabric, source, tag, num_bytes);
    AnswerAll(fabric, tag);
  }

  int64_t piece_bytes_ = kPiece;
};

INSTANTIATE_TEST_SUITE_P(Media, FabricConformance,
                         testing::Combine(testing::Range<size_t>(0, FabricMedia().size()),
                                          testing::Values(1, 2, 5, 8)),
                         [](const auto& test) {
                           return FabricMedia()[std::get<0>(test.param)].name + "_" +
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
      Round(fabric, tag, static_cast<int64_t>(tag * 29 % kPiece));
      if (tag % 16 == 0) std::this_thread::yield();
    }
  });
}

TEST_P(FabricConformance, CarriesLargePayloads) {
  piece_bytes_ = kLargePiece;
  Run([&](Fabric& fabric) {
    for (uint32_t tag = 0xFFFFFFFE; tag != 2; ++tag) Round(fabric, tag, kLargePiece - tag % 5);
  });
}

// The announcement comes before its receiver expects it, and several of one cell in a row.
TEST_P(FabricConformance, KeepsTheOrderOfAnnouncementsThatNobodyExpectedYet) {
  Run([&](Fabric& fabric) {
    const int dst = (fabric.rank() + 1) % num_ranks();
    const int source = (fabric.rank() + num_ranks() - 1) % num_ranks();
    if (fabric.IsReachable(dst) && fabric.IsReachable(source)) return;  // cells are overwritten
    for (uint32_t tag = 1; tag <= 3; ++tag)
      if (!fabric.IsReachable(dst)) fabric.Signal(dst, {.cell = kLine * fabric.rank(), .tag = tag});
    for (uint32_t tag = 1; tag <= 3 && !fabric.IsReachable(source); ++tag) {
      EXPECT_FALSE(fabric.Test(kLine * source, tag));
      fabric.Expect(source, {.cell = kLine * source, .tag = tag});
      EXPECT_TRUE(fabric.Wait(kLine * source, tag, [] { return true; }));
    }
  });
}

TEST_P(FabricConformance, ExpectingWhatIsThereOrIsAwaitedChangesNothing) {
  Run([&](Fabric& fabric) {
    ExpectFromAll(fabric, 0);  // what fresh cells hold
    for (uint32_t tag = 1; tag <= 9; ++tag) {
      ExpectFromAll(fabric, tag);
      Round(fabric, tag, 100);
      ExpectFromAll(fabric, tag);
    }
  });
}

TEST_P(FabricConformance, TestIsFalseForAnyOtherTag) {
  Run([&](Fabric& fabric) {
    const int self = fabric.rank();
    EXPECT_FALSE(fabric.Test(kLine * self, 0xFFFFFFFF));
    fabric.Expect(self, {.cell = kLine * self,
                         .tag = 0xFFFFFFFF,
                         .payload_offset = PieceOf(self),
                         .payload_bytes = 8});
    Send(fabric, self, 0xFFFFFFFF, 8);
    Check(fabric, self, 0xFFFFFFFF, 8);
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
