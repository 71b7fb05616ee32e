#include "eplb/split/token_to_replica.h"

#include <gtest/gtest.h>

#include <random>

namespace wideload::eplb {
namespace {

std::vector<int32_t> Choose(const Placement& placement, const TokenToReplicaOptions& options,
                            const std::vector<int32_t>& ids) {
  std::vector<int32_t> seen(static_cast<size_t>(placement.num_experts), 99);
  std::vector<int32_t> slots(ids.size());
  ChooseReplicasInTurn(MakeRoutingTable(placement), options, ids, seen, slots);
  return slots;
}

// Slots 0 1 2 | 3 4 5 hold experts 0 1 2 | 2 3 0.
const Placement kPlacement = ContiguousPlacement(4, 6, 2);

TEST(ChooseReplicasInTurn, AlternatesFromTheSourceRanksReplica) {
  const std::vector<int32_t> ids = {0, 0, 2, 0, 1, 2};
  EXPECT_EQ(Choose(kPlacement, {.source = EpRank(0)}, ids),
            (std::vector<int32_t>{0, 5, 2, 0, 1, 3}));
  EXPECT_EQ(Choose(kPlacement, {.source = EpRank(1)}, ids),
            (std::vector<int32_t>{5, 0, 3, 5, 1, 2}));
}

TEST(ChooseReplicasInTurn, StartsEachBlockOneReplicaFurther) {
  const std::vector<int32_t> slots =
      Choose(kPlacement, {}, std::vector<int32_t>(3 * kTokenToReplicaBlock, 0));
  EXPECT_EQ(slots[0], 0);
  EXPECT_EQ(slots[kTokenToReplicaBlock - 1], 5);
  EXPECT_EQ(slots[kTokenToReplicaBlock], 5);
  EXPECT_EQ(slots[2 * kTokenToReplicaBlock], 0);
}

TEST(ChooseReplicasInTurn, WritesTheInvalidSlotForForeignIds) {
  EXPECT_EQ(Choose(kPlacement, {.invalid_slot = 6}, {-1, 4, 1}), (std::vector<int32_t>{6, 6, 1}));
}

// The rule as it is stated: how many earlier entries of the block chose the same expert.
TEST(ChooseReplicasInTurn, EqualsTheStatedRule) {
  const Placement placement = RandomPlacement(8, 20, 4, 3);
  const RoutingTable table = MakeRoutingTable(placement);
  std::mt19937 random(11);
  std::vector<int32_t> ids(5000);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % 10) - 1;
  const std::vector<int32_t> slots =
      Choose(placement, {.source = EpRank(3), .invalid_slot = 20}, ids);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] > 7) {
      EXPECT_EQ(slots[i], 20);
      continue;
    }
    size_t turn = i / 1024 + 3;
    for (size_t j = i / 1024 * 1024; j < i; ++j) turn += ids[j] == ids[i] ? 1 : 0;
    const auto replicas = table.SlotsOf(ExpertId(ids[i]));
    EXPECT_EQ(slots[i], replicas[turn % replicas.size()].value);
  }
}

}  // namespace
}  // namespace wideload::eplb
