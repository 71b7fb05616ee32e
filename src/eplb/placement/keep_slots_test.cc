#include "eplb/placement/keep_slots.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "eplb/placement/even_split.h"
#include "eplb/search/component_plan.h"
#include "eplb/testing.h"

namespace wideload::eplb {
namespace {

TEST(RelabelRanks, FindsARenamedPlacementAgain) {
  const Placement plan = ComponentPlan(RandomBatches(32, 1, 3).Mean(), 40, 8);
  Placement renamed = plan;
  std::rotate(renamed.slot_expert.begin(), renamed.slot_expert.begin() + 15,
              renamed.slot_expert.end());
  EXPECT_GT(CountFetchedSlots(plan, renamed), 0);
  EXPECT_EQ(RelabelRanks(plan, renamed), plan);
}

}  // namespace
}  // namespace wideload::eplb
