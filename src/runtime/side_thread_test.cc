#include "runtime/side_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>

namespace wideload::runtime {
namespace {

TEST(SideThread, WorksWhileItsOwnerGoesOn) {
  SideThread beside("beside");
  for (uint32_t i = 1; i < 200; ++i) {
    EventWord owner, other;
    const std::function<void()> work = [&] {
      WaitFor(
          owner, {}, [](uint32_t value) { return value == 1; }, [] { return true; });
      other.Publish(i);
    };
    beside.Begin(work);
    EXPECT_EQ(other.Load(), 0U);
    owner.Publish(1);
    beside.Join();
    EXPECT_EQ(other.Load(), i);
  }
}

TEST(SideThread, GivesBackWhatIsThrownOnce) {
  SideThread beside("beside");
  const std::function<void()> work = [] { throw std::runtime_error("broken"); };
  beside.Begin(work);
  EXPECT_THROW(beside.Join(), std::runtime_error);
  beside.Join();
  beside.Begin(work);
  beside.Finish();
}

TEST(SideThread, EndsWithoutWork) { SideThread beside("beside"); }

}  // namespace
}  // namespace wideload::runtime
