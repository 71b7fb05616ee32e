// A machine or build without GPUs says so; one with GPUs opens them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "device/device.h"

namespace wideload::device {
namespace {

TEST(OpenDevices, SaysInOneLineWhyThereIsNone) {
  std::string why_none;
  if (NumDevices(why_none) > 0) GTEST_SKIP() << "there are GPUs";
  EXPECT_THAT(why_none, testing::AnyOf("this program was built without CUDA",
                                       testing::StartsWith("no CUDA device: ")));
  EXPECT_THAT(why_none, testing::Not(testing::HasSubstr("\n")));
  const int first[] = {0};
  try {
    OpenDevices(first);
    FAIL() << "opened";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
    EXPECT_EQ(error.what(), why_none);
  }
}

TEST(OpenDevices, RefusesANumberThatNoDeviceHas) {
  std::string why_none;
  const int count = NumDevices(why_none);
  if (count == 0) GTEST_SKIP() << why_none;
  for (const int index : {-1, count}) {
    try {
      OpenDevices({&index, 1});
      FAIL() << "opened " << index;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
      EXPECT_THAT(error.what(), testing::HasSubstr(std::to_string(index)));
    }
  }
}

}  // namespace
}  // namespace wideload::device
