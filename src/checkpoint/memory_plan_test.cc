#include "checkpoint/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "checkpoint/test_folder.h"

namespace wideload::checkpoint {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(MemoryPlan, FitsExactly) {
  const MemoryPart parts[] = {{"weights", 1000, ""}, {"KV cache", 24, "--kv-cache-memory"}};
  EXPECT_EQ(Refusal([&] { CheckMemory(parts, 1024); }), "accepted");
  EXPECT_NE(Refusal([&] { CheckMemory(parts, 1023); }), "accepted");
}

TEST(MemoryPlan, NamesEveryPartTheSumAndTheFlagsLargestFirst) {
  const MemoryPart parts[] = {{"weights", uint64_t{3} << 30, ""},
                              {"buffers", uint64_t{1} << 20, "--max-num-tokens"},
                              {"KV cache", uint64_t{1} << 30, "--kv-cache-memory"}};
  EXPECT_THAT(Refusal([&] { CheckMemory(parts, uint64_t{2} << 30); }),
              AllOf(HasSubstr("weights 3.0 GiB + buffers 1.0 MiB + KV cache 1.0 GiB = 4.0 GiB"),
                    HasSubstr("2.0 GiB available"),
                    HasSubstr("lower --kv-cache-memory, --max-num-tokens")));
}

TEST(MemoryPlan, SumsThatOverflowDoNotFit) {
  const MemoryPart parts[] = {{"a", std::numeric_limits<uint64_t>::max(), ""}, {"b", 1, ""}};
  EXPECT_EQ(TotalBytes(parts), std::numeric_limits<uint64_t>::max());
  EXPECT_THAT(Refusal([&] { CheckMemory(parts, uint64_t{1} << 40); }), HasSubstr("not enough"));
}

}  // namespace
}  // namespace wideload::checkpoint
