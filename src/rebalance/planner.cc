#include "rebalance/planner.h"

#include <charconv>

#include "base/error.h"
#include "rebalance/random_planner.h"

namespace wideload::rebalance {
namespace {

constexpr std::string_view kRandomPrefix = "random:";

}  // namespace

void ParseMode(std::string_view text, std::string_view name, OnlineOptions& options) {
  if (text == "off") {
    options.mode = Mode::kOff;
    return;
  }
  if (text.starts_with(kRandomPrefix)) {
    const char* const end = text.data() + text.size();
    const auto read = std::from_chars(text.data() + kRandomPrefix.size(), end, options.seed);
    options.mode = Mode::kRandom;
    if (read.ec == std::errc() && read.ptr == end) return;
  }
  Throw(ErrorKind::kInvalid, "{} is \"{}\"; allowed: off, random:SEED (0 or more)", name, text);
}

std::unique_ptr<Planner> MakePlanner(const OnlineOptions& options,
                                     const std::vector<eplb::Placement>& start) {
  switch (options.mode) {
    case Mode::kOff:
      return nullptr;
    case Mode::kRandom:
      return std::make_unique<RandomPlanner>(options.seed, start);
  }
  return nullptr;
}

}  // namespace wideload::rebalance
