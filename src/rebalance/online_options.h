// How an online balancer works: plain values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace wideload::rebalance {

enum class Mode {
  kOff,
  kRandom,  // every layer anew at random after every iteration: what tests move weights with
};

struct OnlineOptions {
  Mode mode = Mode::kOff;
  uint64_t seed = 1;  // of kRandom
  // A change takes effect so many iterations after its counts; >= 1. With 2 or more the planner
  // works while the next iteration runs.
  int32_t delay_iterations = 2;
  // Whether ChangeFor waits for a plan that is not ready, so that the same counts always give the
  // same changes. Without, a late plan takes the next boundary.
  bool is_waiting = true;
};

// What `--rebalance` says: off, random:SEED. Sets mode and seed. Errors: kInvalid naming `name`
// and what is allowed.
void ParseMode(std::string_view text, std::string_view name, OnlineOptions& options);

}  // namespace wideload::rebalance
