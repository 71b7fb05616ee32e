// The part of `wideload eplb simulate` that replays an online balancer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "command_line.h"
#include "eplb_traces.h"
#include "rebalance/online_options.h"

namespace wideload::apps {

struct RebalanceFlags {
  std::string mode = "off";
  rebalance::OnlineOptions options;
};
void AddRebalanceFlags(Command command, RebalanceFlags& flags);

struct RebalanceRun {
  int32_t ep_size = 0;
  int32_t num_slots = 0;
  std::vector<std::string> splits;  // of even and optimal
};
// All iterations of the source, recorded ones first, through one balancer that starts on contiguous
// placements. Errors: kInvalid for a mode or an option out of range, or another split.
Json SimulateRebalance(const RebalanceFlags& flags, const LayerTraces& traces,
                       const RebalanceRun& run);
std::string RebalanceText(const Json& report);

}  // namespace wideload::apps
