#include "eplb/policies/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace wideload::eplb {
namespace {

TEST(Policies, GiveAValidPlacementOfTheSizesAskedFor) {
  const std::vector<double> loads = {5, 0, 3, 1, 9, 2};
  for (const Policy& policy : Policies()) {
    const Placement placement = policy.plan({.loads = loads,
                                             .num_slots = 8,
                                             .num_ranks = 4,
                                             .num_nodes = policy.name == "scenario" ? 1 : 2});
    ValidatePlacement(placement, std::string(policy.name));
    EXPECT_EQ(placement.num_slots(), 8) << policy.name;
    EXPECT_EQ(placement.num_ranks, 4) << policy.name;
  }
}

TEST(Policies, SpreadSpareSlotsWithoutLoad) {
  const std::vector<double> loads(6, 0);
  for (const Policy& policy : Policies()) {
    const Placement placement = policy.plan({.loads = loads, .num_slots = 8, .num_ranks = 4});
    const RoutingTable table = MakeRoutingTable(placement);
    for (int32_t e = 0; e < 6; ++e)
      EXPECT_LE(table.SlotsOf(ExpertId(e)).size(), 2u) << policy.name << " expert " << e;
  }
}

TEST(FindPolicy, RefusesAnUnknownNameWithTheList) {
  EXPECT_EQ(FindPolicy("deepseek").name, "deepseek");
  try {
    FindPolicy("best");
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), ::testing::HasSubstr("allowed: contiguous, tensorrt_llm, deepseek"));
  }
}

}  // namespace
}  // namespace wideload::eplb
