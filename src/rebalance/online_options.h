// How an online balancer works: plain values.
#pragma once

#include <cstdint>
#include <string_view>

#include "trace/trace.h"

namespace wideload::rebalance {

// Who decides what the slots hold.
enum class Mode {
  kOff,
  kRepair,       // the best gain per fetched slot
  kTensorRtLlm,  // TensorRT-LLM's rotation, decay and policy
  kRandom,       // every layer anew at random after every iteration: what tests move weights with
};

struct OnlineOptions {
  Mode mode = Mode::kOff;
  uint64_t seed = 1;  // of kRandom and kRepair
  // A change takes effect so many iterations after its counts; >= 1. With 2 or more the planner
  // works while the next iteration runs.
  int32_t delay_iterations = 2;
  // Whether ChangeFor waits for a plan that is not ready, so that the same counts always give the
  // same changes. Without, a late plan takes the next boundary.
  bool is_waiting = true;
  int32_t layer_updates_per_iter = 1;       // of kTensorRtLlm; >= 1
  int32_t max_fetched_slots_per_iter = 16;  // of kRepair, over all layers; >= 1
  // Of kRepair: balances for ranks that split an expert's tokens evenly over its slots, else for
  // those that split each batch optimally. The engine sets it by its own split.
  bool splits_evenly = false;
  // Of kRepair: the imbalance of recent iterations (under that split) at which a layer begins to be
  // repaired, and at which it is good enough; 0 <= target <= threshold.
  double threshold = 0.02;
  double target = 0.005;
  double min_gain = 1e-3;         // of kRepair: imbalance that a fetched slot must save at least
  trace::Trace* trace = nullptr;  // gets a track of the planner; may be null
};

// What `--rebalance` says: off, repair, tensorrt_llm, random:SEED. Sets mode and, of random, seed.
// Errors: kInvalid naming `name` and what is allowed.
void ParseMode(std::string_view text, std::string_view name, OnlineOptions& options);
// "off", "repair", "tensorrt_llm", "random".
std::string_view ModeName(Mode mode);

}  // namespace wideload::rebalance
