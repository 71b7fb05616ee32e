#include "moe/slot_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "base/error.h"

namespace wideload::moe {
namespace {

using testing::HasSubstr;

constexpr size_t kLayers = 3;
constexpr int32_t kExperts = 6;
constexpr int32_t kSlots = 8;
constexpr int32_t kRanks = 2;

// Experts whose bytes differ from each other.
class Host {
 public:
  Host() : memory_(kLayers) {
    const compute::ExpertShape shape{.hidden = 40, .inner = 24};
    std::mt19937 random(1);
    for (auto& layer : memory_) {
      for (int32_t e = 0; e < kExperts; ++e) {
        layer.push_back(compute::ExpertWeights::Over(shape, Buffer(shape.num_bytes())));
        for (std::byte& byte : layer.back().bytes()) byte = static_cast<std::byte>(random());
      }
      experts.emplace_back(layer);
    }
  }

  HostExperts experts;

 private:
  std::vector<std::vector<compute::ExpertWeights>> memory_;
};

SharedPlacements RandomTable(int64_t generation) {
  std::vector<eplb::Placement> placements;
  for (size_t layer = 0; layer < kLayers; ++layer)
    placements.push_back(eplb::RandomPlacement(
        kExperts, kSlots, kRanks, static_cast<uint64_t>(generation) * kLayers + layer));
  return MakePlacementTable(generation, std::move(placements));
}

class SlotStoreTest : public testing::TestWithParam<SlotStorage> {
 protected:
  SlotOptions Options(int32_t num_spare) const {
    return {.storage = GetParam(), .rank = 1, .ep_rank = 1, .num_spare = num_spare};
  }

  void ExpectHolds(SlotStore& store, const PlacementTable& table) {
    for (size_t layer = 0; layer < kLayers; ++layer) {
      const auto slots = store.Layer(static_cast<int32_t>(layer));
      ASSERT_EQ(slots.size(), kSlots / kRanks);
      for (size_t s = 0; s < slots.size(); ++s) {
        const ExpertId expert = table.placements[layer].slot_expert[kSlots / kRanks + s];
        const auto wanted = host_.experts[layer][static_cast<size_t>(expert.value)].bytes();
        EXPECT_TRUE(std::ranges::equal(slots[s]->bytes(), wanted))
            << "layer " << layer << ", slot " << s << ", generation " << table.generation;
        EXPECT_EQ(slots[s]->bytes().data() == wanted.data(), GetParam() == SlotStorage::kView);
      }
    }
  }

  Host host_;
  ThreadPool pool_{"test", 2};
};

// With fewer spare blocks than a change needs, with as many, with none at all.
TEST_P(SlotStoreTest, HoldsTheBytesOfEachTableAnnouncedOrNot) {
  for (const int32_t num_spare : {0, 1, 5, 100}) {
    SlotStore store(host_.experts, *RandomTable(0), Options(num_spare));
    ExpectHolds(store, *RandomTable(0));
    for (int64_t generation = 1; generation < 60; ++generation) {
      const SharedPlacements next = RandomTable(generation);
      if (generation % 3 != 0) {
        store.Announce(*next);
        ExpectHolds(store, *RandomTable(generation - 1));
      }
      store.Use(*next);
      if (generation % 7 == 6) continue;  // nobody looks at this one's slots
      ExpectHolds(store, *next);
    }
    EXPECT_GT(store.figures().num_fetched, 100);
  }
}

TEST_P(SlotStoreTest, CopiesNothingThatItsRankHolds) {
  auto placements = RandomTable(0)->placements;
  SlotStore store(host_.experts, *MakePlacementTable(0, placements), Options(1));
  for (eplb::Placement& placement : placements)
    std::reverse(placement.slot_expert.begin() + kSlots / kRanks, placement.slot_expert.end());
  const SharedPlacements next = MakePlacementTable(1, placements);
  store.Use(*next);
  ExpectHolds(store, *next);
  EXPECT_EQ(store.figures().num_fetched, 0);
  EXPECT_EQ(store.figures().copied_bytes, 0);
}

TEST_P(SlotStoreTest, FindsAFlippedByteAndNamesIt) {
  const SharedPlacements table = RandomTable(4);
  SlotStore store(host_.experts, *table, Options(1));
  const ExpertSums sums = SumExperts(host_.experts, pool_);
  store.Verify(sums, pool_);
  const compute::ExpertWeights& slot = *store.Layer(2)[1];
  std::byte& byte = slot.bytes()[slot.bytes().size() / 2];
  byte ^= std::byte{4};
  const int32_t expert = table->placements[2].slot_expert[5].value;
  try {
    store.Verify(sums, pool_);
    FAIL() << "not found";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
    EXPECT_THAT(error.what(), HasSubstr("rank 1: slot 5 of MoE layer 2"));
    EXPECT_THAT(error.what(), HasSubstr(fmt::format("expert {}", expert)));
  }
  byte ^= std::byte{4};
  store.Verify(sums, pool_);
}

INSTANTIATE_TEST_SUITE_P(Storages, SlotStoreTest,
                         testing::Values(SlotStorage::kView, SlotStorage::kCopy),
                         [](const auto& storage) {
                           return storage.param == SlotStorage::kView ? "view" : "copy";
                         });

TEST(SumBytes, DiffersForEveryFlippedBit) {
  std::vector<std::byte> bytes(101);
  const uint64_t sum = SumBytes(bytes);
  for (size_t i = 0; i < bytes.size(); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      bytes[i] ^= std::byte(1 << bit);
      EXPECT_NE(SumBytes(bytes), sum) << i << ", " << bit;
      bytes[i] ^= std::byte(1 << bit);
    }
  EXPECT_NE(SumBytes(std::span(bytes).first(100)), sum);
}

TEST(BandwidthLimit, SpreadsCopiesOverTime) {
  using std::chrono::milliseconds;
  BandwidthLimit limit(1'000'000);
  const BandwidthLimit::Time start{milliseconds(50)};
  EXPECT_EQ(limit.Take(10'000, start), start);
  EXPECT_EQ(limit.Take(5'000, start), start + milliseconds(10));
  EXPECT_EQ(limit.Take(5'000, start + milliseconds(12)), start + milliseconds(15));
  // What nobody took in a pause is not made up for.
  EXPECT_EQ(limit.Take(5'000, start + milliseconds(100)), start + milliseconds(100));
  EXPECT_EQ(limit.Take(5'000, start + milliseconds(100)), start + milliseconds(105));
  BandwidthLimit none(0);
  EXPECT_EQ(none.Take(1 << 30, start), start);
  EXPECT_EQ(none.Take(1 << 30, start), start);
}

TEST(SlotStorageName, IsViewOrCopy) {
  EXPECT_EQ(ParseSlotStorage("view"), SlotStorage::kView);
  EXPECT_EQ(ParseSlotStorage("copy"), SlotStorage::kCopy);
  EXPECT_THROW(ParseSlotStorage("Copy"), Error);
}

TEST(PlacementTable, HasAnotherDigestWheneverASlotOrTheGenerationDiffers) {
  const SharedPlacements table = RandomTable(3);
  EXPECT_EQ(table->stamp(), RandomTable(3)->stamp());
  EXPECT_NE(MakePlacementTable(4, table->placements)->digest, table->digest);
  auto placements = table->placements;
  placements[1].slot_expert[2].value ^= 1;
  EXPECT_NE(MakePlacementTable(3, placements)->digest, table->digest);
}

}  // namespace
}  // namespace wideload::moe
