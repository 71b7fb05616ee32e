#include "base/child_process.h"

#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <thread>

namespace wideload {
namespace {

std::string EndOf(ChildProcess& child) {
  for (int i = 0; i < 5000; ++i) {
    if (const auto status = child.Poll()) return DescribeEnd(*status);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return "it runs";
}

TEST(ChildProcess, TheEndSaysHow) {
  ChildProcess left({"sh", "-c", "exit 7"});
  EXPECT_EQ(EndOf(left), "exit code 7");
  ChildProcess killed({"sh", "-c", "kill -9 $$"});
  EXPECT_EQ(EndOf(killed), "signal 9 (Killed)");
  ChildProcess missing({"/nowhere/program"});
  EXPECT_EQ(EndOf(missing), "exit code 127");
}

TEST(ChildProcess, ItHasNothingOfTheParentButOutputs) {
  // Standard input is empty, and ls itself opens one descriptor.
  ChildProcess child({"sh", "-c", "test -z \"$(cat)\" && test $(ls /proc/self/fd | wc -l) -le 4"});
  EXPECT_EQ(EndOf(child), "exit code 0");
}

TEST(ChildProcess, ASignalReachesItAndTheDestructorEndsIt) {
  ChildProcess told({"sleep", "100"});
  EXPECT_FALSE(told.Poll().has_value());
  told.Signal(SIGTERM);
  EXPECT_EQ(EndOf(told), "signal 15 (Terminated)");
  const auto start = std::chrono::steady_clock::now();
  { const ChildProcess left({"sleep", "100"}); }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(50));
}

}  // namespace
}  // namespace wideload
