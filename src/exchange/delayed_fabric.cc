#include "exchange/delayed_fabric.h"

#include <algorithm>
#include <thread>
#include <utility>

namespace wideload::exchange {
namespace {

using std::chrono::microseconds;
using std::chrono::steady_clock;

constexpr microseconds kPoll{50};
constexpr microseconds kDelayedCheckInterval{5000};

}  // namespace

DelayedFabric::DelayedFabric(std::unique_ptr<Fabric> inner, microseconds delay, Clock now,
                             Choice is_delayed)
    : inner_(std::move(inner)),
      delay_(delay),
      now_(std::move(now)),
      is_delayed_(is_delayed ? std::move(is_delayed)
                             : [this](int source) { return !inner_->IsReachable(source); }) {}

std::vector<DelayedFabric::Expected>::iterator DelayedFabric::Find(int64_t cell, uint32_t tag) {
  return std::find_if(expected_.begin(), expected_.end(), [&](const Expected& expected) {
    return expected.cell == cell && expected.tag == tag;
  });
}

void DelayedFabric::Expect(int source, const Message& message) {
  const bool is_there = inner_->Test(message.cell, message.tag);
  inner_->Expect(source, message);
  if (!is_there && is_delayed_(source) && Find(message.cell, message.tag) == expected_.end())
    expected_.push_back({.cell = message.cell, .tag = message.tag, .due = {}});
}

// What came together is seen together, whichever is asked for first.
void DelayedFabric::NoteArrivals() {
  const auto now = now_();
  for (Expected& expected : expected_)
    if (!expected.due && inner_->Test(expected.cell, expected.tag)) expected.due = now + delay_;
}

bool DelayedFabric::Test(int64_t cell, uint32_t tag) {
  NoteArrivals();
  const auto expected = Find(cell, tag);
  if (expected == expected_.end()) return inner_->Test(cell, tag);
  if (!expected->due || now_() < *expected->due) return false;
  expected_.erase(expected);
  return true;
}

bool DelayedFabric::Wait(int64_t cell, uint32_t tag, FunctionRef<bool()> keep_waiting) {
  auto next_check = steady_clock::now();
  while (!Test(cell, tag)) {
    if (const auto now = steady_clock::now(); now >= next_check) {
      if (!keep_waiting()) return Test(cell, tag);
      next_check = now + kDelayedCheckInterval;
    }
    std::this_thread::sleep_for(kPoll);
  }
  return true;
}

}  // namespace wideload::exchange
