#include "runtime/start/run_devices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace wideload::runtime {
namespace {

// What `call` is refused with.
template <class Call>
std::string DeviceRefusal(ErrorKind kind, const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  return "nothing";
}

TEST(RunDevices, AreTheProcessorAllGpusOrTheseOnes) {
  EXPECT_TRUE(ParseDevice("cpu").is_cpu);
  EXPECT_FALSE(ParseDevice("cuda").is_cpu);
  EXPECT_TRUE(ParseDevice("cuda").indices.empty());
  EXPECT_THAT(ParseDevice("cuda:0").indices, testing::ElementsAre(0));
  EXPECT_THAT(ParseDevice("cuda:3,0,12").indices, testing::ElementsAre(3, 0, 12));
}

TEST(RunDevices, OtherTextsAreRefusedWithWhatIsAllowed) {
  for (const char* text : {"", "gpu", "CPU", "cuda:", "cuda0", "cuda:0,", "cuda:,0", "cuda:0,0",
                           "cuda:-1", "cuda:0 1", "cuda:x", "cuda:99999999999", "cpu:0"}) {
    const std::string refusal = DeviceRefusal(ErrorKind::kInvalid, [&] { ParseDevice(text); });
    EXPECT_THAT(refusal, testing::HasSubstr(fmt::format("--device is \"{}\"", text)));
    EXPECT_THAT(refusal, testing::HasSubstr("cpu, cuda"));
  }
}

TEST(RunDevices, TheProcessorIsAlwaysThereAndNoDevice) {
  CheckRunDevice("cpu");
  EXPECT_TRUE(OpenRunDevices("cpu").devices.empty());
}

TEST(RunDevices, GpusThatAreNotThereAreRefusedInOneLine) {
  std::string why_none;
  const std::string text =
      device::NumDevices(why_none) == 0 ? "cuda" : "cuda:0,100000";  // no machine has these
  for (const std::string& refusal :
       {DeviceRefusal(ErrorKind::kUnsupported, [&] { CheckRunDevice(text); }),
        DeviceRefusal(ErrorKind::kUnsupported, [&] { OpenRunDevices(text); })}) {
    EXPECT_THAT(refusal, testing::StartsWith(fmt::format("--device is {}: ", text)));
    EXPECT_THAT(refusal, testing::HasSubstr(why_none));
    EXPECT_THAT(refusal, testing::Not(testing::HasSubstr("\n")));
  }
}

}  // namespace
}  // namespace wideload::runtime
