// The implementations that the conformance suite of Communicator runs over.
#pragma once

#include <climits>
#include <functional>
#include <string>
#include <vector>

#include "comm/local/rank_threads.h"

namespace wideload::comm {

struct CommunicatorMedium {
  std::string name;
  // Runs body on every rank of a fresh group and reports how that ended.
  std::function<RankOutcome(int num_ranks, GroupOptions, std::function<void(Communicator&)>)> run;
  int max_ranks = INT_MAX;
};

// The same at every call.
const std::vector<CommunicatorMedium>& CommunicatorMedia();

}  // namespace wideload::comm
