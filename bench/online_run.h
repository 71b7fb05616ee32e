// One run of the engine under bench_online's load: its balance, and the thread CPU time of its
// parts.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "loaded_model.h"
#include "online_load.h"
#include "online_recording.h"

namespace wideload::bench {

struct OnlineSetup {
  std::string name;
  int32_t num_ranks = 8;
  int32_t num_slots = 0;
  int64_t max_num_tokens = 0;               // of a rank and iteration
  std::vector<eplb::Placement> placements;  // at the start; empty: contiguous
  eplb::SplitMode split = eplb::SplitMode::kOptimal;
  rebalance::OnlineOptions online;
};

// CPU seconds of some iterations of a run, all ranks and threads.
struct OnlineCost {
  int64_t num_iterations = 0;
  int64_t num_tokens = 0;
  double total_s = 0;      // of the process
  double counting_s = 0;   // counting what tokens route to and choosing slots, in the ranks
  double moving_s = 0;     // taking over changes, in the ranks
  double balancer_s = 0;   // summing counts up and taking changes, in the engine's thread
  double planning_s = 0;   // in the planner's thread, off the iteration's path
  double critical_s = 0;   // sum over layers of the longest computation of a rank
  double computing_s = 0;  // sum over layers of the mean over ranks of the same

  OnlineCost& operator+=(const OnlineCost& other);
  // Of total_s, what is on the iteration's path for the sake of balance.
  double PathShare() const { return (counting_s + moving_s + balancer_s) / total_s; }
};

// Kinds of iterations. Those with some prompt tokens, below kLargeTokens, are in none but kAll.
enum class CostKind { kAll, kLarge, kDecode };
inline constexpr int64_t kLargeTokens = 1024;

struct OnlineRun {
  std::vector<rebalance::ReplayedIteration> iterations;  // as measured
  Recording recording;
  std::array<OnlineCost, 3> costs;  // by CostKind
  double seconds = 0;
  rebalance::BalancerFigures figures;
  std::vector<eplb::Placement> placements;  // in the end; empty without a balancer

  const OnlineCost& cost(CostKind kind) const { return costs[static_cast<size_t>(kind)]; }
};

OnlineRun RunOnline(const LoadedModel& loaded, const OnlineLoad& load, const OnlineSetup& setup);

}  // namespace wideload::bench
