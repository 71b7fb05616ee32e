// Ranks on a device: the same bits on every layout as on one rank, with replicas, chunks and
// experts that move at every iteration.
#include <gtest/gtest.h>

#include "support/layout_cases.h"
#include "support/test_data.h"
#include "support/test_device.h"

namespace wideload::testing_support {
namespace {

TEST(DeviceLayouts, RanksGiveTheBitsOfOneWhereverExpertsAre) {
  const std::string why_none = OpenTestDevice();
  if (!why_none.empty()) GTEST_SKIP() << "not run on a GPU: " << why_none;
  LayoutRunner runner(SourcePath("testdata/models/tiny-qwen3-moe"), compute::KernelSet::kCudaMma);
  for (const int32_t num_ranks : {1, 2, 4, 8})
    for (const bool are_experts_moving : {false, true}) {
      const LayoutCase layout{.layout = parallel::DataParallel(num_ranks),
                              .are_experts_moving = are_experts_moving};
      EXPECT_EQ(runner.Run(layout), "0") << layout.Describe();
    }
}

}  // namespace
}  // namespace wideload::testing_support
