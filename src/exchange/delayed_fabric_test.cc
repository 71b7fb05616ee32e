#include "exchange/delayed_fabric.h"

#include <gtest/gtest.h>

#include <cstring>

#include "exchange/local_fabric.h"

namespace wideload::exchange {
namespace {

using std::chrono::microseconds;
using std::chrono::steady_clock;

// Passes calls on to the fabric of a rank that somebody else owns.
class Borrowed final : public Fabric {
 public:
  explicit Borrowed(Fabric& fabric) : fabric_(fabric) {}
  int rank() const override { return fabric_.rank(); }
  int size() const override { return fabric_.size(); }
  int64_t segment_bytes() const override { return fabric_.segment_bytes(); }
  std::byte* Window(int dst, int64_t offset) const override { return fabric_.Window(dst, offset); }
  bool IsReachable(int dst) const override { return fabric_.IsReachable(dst); }
  void Signal(int dst, const Message& message) override { fabric_.Signal(dst, message); }
  void Expect(int source, const Message& message) override { fabric_.Expect(source, message); }
  bool Test(int64_t cell, uint32_t tag) override { return fabric_.Test(cell, tag); }
  bool Wait(int64_t cell, uint32_t tag, FunctionRef<bool()> keep_waiting) override {
    return fabric_.Wait(cell, tag, keep_waiting);
  }

 private:
  Fabric& fabric_;
};

// Ranks 1 and 2 announce to rank 0, which sees what rank 1 says 100 us late.
class Delayed : public testing::Test {
 protected:
  static constexpr Fabric::Message kFar{.cell = 0, .tag = 7};
  static constexpr Fabric::Message kNear{.cell = 128, .tag = 7};

  LocalFabrics fabrics_{3, 4096};
  steady_clock::time_point now_{};
  DelayedFabric home_{std::make_unique<Borrowed>(fabrics_.rank(0)), microseconds(100),
                      [this] { return now_; }, [](int source) { return source == 1; }};
};

TEST_F(Delayed, ShowsAnAnnouncementAfterTheDelayAndNotBefore) {
  home_.Expect(1, kFar);
  now_ += microseconds(1000);
  EXPECT_FALSE(home_.Test(kFar.cell, kFar.tag));
  fabrics_.rank(1).Signal(0, kFar);
  EXPECT_FALSE(home_.Test(kFar.cell, kFar.tag));
  now_ += microseconds(99);
  EXPECT_FALSE(home_.Test(kFar.cell, kFar.tag));
  now_ += microseconds(1);
  EXPECT_TRUE(home_.Test(kFar.cell, kFar.tag));
  EXPECT_TRUE(home_.Test(kFar.cell, kFar.tag));
}

TEST_F(Delayed, ShowsOthersAtOnce) {
  home_.Expect(2, kNear);
  fabrics_.rank(2).Signal(0, kNear);
  EXPECT_TRUE(home_.Test(kNear.cell, kNear.tag));
}

TEST_F(Delayed, CountsTheDelayFromTheFirstLookAtAnything) {
  home_.Expect(1, kFar);
  fabrics_.rank(1).Signal(0, kFar);
  EXPECT_FALSE(home_.Test(kNear.cell, kNear.tag));
  now_ += microseconds(100);
  EXPECT_TRUE(home_.Test(kFar.cell, kFar.tag));
}

TEST_F(Delayed, WaitsUntilTheDelayIsOverOrItIsToldToEnd) {
  home_.Expect(1, kFar);
  fabrics_.rank(1).Signal(0, kFar);
  EXPECT_FALSE(home_.Wait(kFar.cell, kFar.tag, [] { return false; }));
  EXPECT_TRUE(home_.Wait(kFar.cell, kFar.tag, [this] {
    now_ += microseconds(60);
    return true;
  }));
}

}  // namespace
}  // namespace wideload::exchange
