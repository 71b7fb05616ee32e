#include "rebalance/planner.h"

#include <charconv>

#include "base/error.h"
#include "rebalance/random_planner.h"
#include "rebalance/repair_planner.h"
#include "rebalance/tensorrt_llm_planner.h"

namespace wideload::rebalance {
namespace {

constexpr std::string_view kRandomPrefix = "random:";

void CheckOptions(const OnlineOptions& options) {
  const auto at_least_1 = [](std::string_view name, int32_t value) {
    if (value < 1)
      Throw(ErrorKind::kInvalid, "online balancer: {} is {}; it must be 1 or more", name, value);
  };
  if (options.mode == Mode::kTensorRtLlm)
    at_least_1("layer_updates_per_iter", options.layer_updates_per_iter);
  if (options.mode != Mode::kRepair) return;
  at_least_1("max_fetched_slots_per_iter", options.max_fetched_slots_per_iter);
  if (!(options.target >= 0 && options.target <= options.threshold))
    Throw(ErrorKind::kInvalid,
          "online balancer: target is {} and threshold {}; allowed: 0 <= target <= threshold",
          options.target, options.threshold);
}

}  // namespace

void ParseMode(std::string_view text, std::string_view name, OnlineOptions& options) {
  for (const Mode mode : {Mode::kOff, Mode::kRepair, Mode::kTensorRtLlm}) {
    if (text != ModeName(mode)) continue;
    options.mode = mode;
    return;
  }
  if (text.starts_with(kRandomPrefix)) {
    const char* const end = text.data() + text.size();
    const auto read = std::from_chars(text.data() + kRandomPrefix.size(), end, options.seed);
    options.mode = Mode::kRandom;
    if (read.ec == std::errc() && read.ptr == end) return;
  }
  Throw(ErrorKind::kInvalid,
        "{} is \"{}\"; allowed: off, repair, tensorrt_llm, random:SEED (0 or more)", name, text);
}

std::string_view ModeName(Mode mode) {
  switch (mode) {
    case Mode::kOff:
      return "off";
    case Mode::kRepair:
      return "repair";
    case Mode::kTensorRtLlm:
      return "tensorrt_llm";
    case Mode::kRandom:
      return "random";
  }
  return "";
}

std::unique_ptr<Planner> MakePlanner(const OnlineOptions& options,
                                     const std::vector<eplb::Placement>& start) {
  CheckOptions(options);
  switch (options.mode) {
    case Mode::kOff:
      return nullptr;
    case Mode::kRepair:
      return std::make_unique<RepairPlanner>(options, start);
    case Mode::kTensorRtLlm:
      return std::make_unique<TensorRtLlmPlanner>(options.layer_updates_per_iter, start);
    case Mode::kRandom:
      return std::make_unique<RandomPlanner>(options.seed, start);
  }
  return nullptr;
}

}  // namespace wideload::rebalance
