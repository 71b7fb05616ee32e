#include "exchange/make_fabric.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace wideload::exchange {
namespace {

TEST(MediumFor, IsSharedMemoryWithinOneHostAndMpiBetweenHosts) {
  EXPECT_EQ(MediumFor({.host_of_rank = {0, 0, 0}, .num_hosts = 1}), Medium::kSharedMemory);
  EXPECT_EQ(MediumFor({.host_of_rank = {0}, .num_hosts = 1}), Medium::kSharedMemory);
  EXPECT_EQ(MediumFor({.host_of_rank = {0, 1, 2}, .num_hosts = 3}), Medium::kMpi);
  EXPECT_EQ(MediumFor({.host_of_rank = {0, 0, 1}, .num_hosts = 2}), Medium::kMixed);
}

TEST(MediumText, SaysWhatJoinsWhich) {
  EXPECT_EQ(MediumText({.host_of_rank = {0, 0}, .num_hosts = 1}), "shared memory");
  EXPECT_EQ(MediumText({.host_of_rank = {0, 1}, .num_hosts = 2}), "MPI between 2 hosts");
  EXPECT_EQ(MediumText({.host_of_rank = {0, 1, 0, 1}, .num_hosts = 2}),
            "shared memory within 2 hosts, MPI between them");
}

std::chrono::microseconds Delay(const char* value) {
  return DelayFrom([value](const char*) { return value; });
}

TEST(DelayFrom, ReadsMicroseconds) {
  EXPECT_EQ(Delay(nullptr).count(), 0);
  EXPECT_EQ(Delay("0").count(), 0);
  EXPECT_EQ(Delay("250").count(), 250);
}

TEST(DelayFrom, RefusesWhatIsNoDelay) {
  for (const char* text : {"", "-1", "2ms", "10000001", " 5"}) {
    try {
      Delay(text);
      ADD_FAILURE() << "accepted '" << text << "'";
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()), "WIDELOAD_FABRIC_DELAY_US is '" + std::string(text) +
                                               "'; it must be 0 to 10000000");
    }
  }
}

}  // namespace
}  // namespace wideload::exchange
