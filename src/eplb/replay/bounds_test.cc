#include "eplb/replay/bounds.h"

#include <gtest/gtest.h>

#include <vector>

namespace wideload::eplb {
namespace {

TEST(ReplicaCapacityBound, IsTheHottestExpertWithoutSpareSlots) {
  EXPECT_NEAR(ReplicaCapacityBound(std::vector<double>{6, 1, 1}, {3, 3}), 6 / (8 / 3.0) - 1, 1e-6);
  EXPECT_EQ(ReplicaCapacityBound(std::vector<double>{1, 1}, {2, 2}), 0);
}

}  // namespace
}  // namespace wideload::eplb
