// A Fabric for tests of slow networks: what ranks announce that cannot be reached by loads and
// stores is seen later than it comes. Used as Fabric says.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "exchange/fabric.h"

namespace wideload::exchange {

class DelayedFabric final : public Fabric {
 public:
  // What is now.
  using Clock = std::function<std::chrono::steady_clock::time_point()>;
  // Whether what a rank announces is delayed.
  using Choice = std::function<bool(int source)>;

  // An expected announcement is seen `delay` after it came, which is when a Test or Wait of this
  // rank first finds it. Those of ranks within reach are seen at once, unless `is_delayed` says
  // otherwise.
  DelayedFabric(std::unique_ptr<Fabric> inner, std::chrono::microseconds delay,
                Clock now = std::chrono::steady_clock::now, Choice is_delayed = {});

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  int64_t segment_bytes() const override { return inner_->segment_bytes(); }
  std::byte* Window(int dst, int64_t offset) const override { return inner_->Window(dst, offset); }
  bool IsReachable(int dst) const override { return inner_->IsReachable(dst); }
  void Signal(int dst, const Message& message) override { inner_->Signal(dst, message); }
  void Expect(int source, const Message& message) override;
  bool Test(int64_t cell, uint32_t tag) override;
  bool Wait(int64_t cell, uint32_t tag, FunctionRef<bool()> keep_waiting) override;

 private:
  // Expected and not seen yet.
  struct Expected {
    int64_t cell = 0;
    uint32_t tag = 0;
    std::optional<std::chrono::steady_clock::time_point> due;  // once it came
  };
  std::vector<Expected>::iterator Find(int64_t cell, uint32_t tag);
  void NoteArrivals();

  std::unique_ptr<Fabric> inner_;
  std::chrono::microseconds delay_;
  Clock now_;
  Choice is_delayed_;
  std::vector<Expected> expected_;
};

}  // namespace wideload::exchange
