// On devices that work as late as they may, a wait that is missing is seen.
#include <gtest/gtest.h>

#include "tests/ranks/exchange_on_device.h"

namespace wideload::exchange {
namespace {

// Each rank's stream waits for nobody: what it does, it does with rows that are not there yet, or
// no longer.
TEST(LateDevices, ShowAWaitThatIsLeftOut) {
  Load load;
  load.num_ranks = 4;
  load.max_rows = 4;
  load.share = Share::kEven;
  ASSERT_TRUE(IsOracle(load, RunOnDevices(load)));
  for (const Direction direction : {Direction::kOut, Direction::kBack})
    EXPECT_FALSE(IsOracle(load, RunOnDevices(load, {.left_out = direction})));
}

}  // namespace
}  // namespace wideload::exchange
