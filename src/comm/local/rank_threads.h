// Starts the ranks of a LocalGroup as named threads, ends all of them when one fails, and says
// which error came first.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "comm/local/local_communicator.h"

namespace wideload::comm {

// How a run of all ranks ended.
struct RankOutcome {
  std::string error;             // what the first rank that found a fault reported; empty: all done
  std::vector<int> stuck_ranks;  // threads that neither ended nor noticed the abort
  bool ok() const { return error.empty(); }
};

// Calls body(communicator) on one thread per rank, named "rank r", and waits for all. An Error out
// of a body aborts the group, so that the waits of the others end; its message is in the outcome.
// Once a rank has failed, the others get the group's deadline and a second to end. With
// `stuck_ranks` not empty those threads still run and use `group` and what `body` refers to: the
// caller writes what it has to write and ends the process with std::_Exit. Errors: kResource when a
// thread cannot be started.
RankOutcome RunRanks(LocalGroup& group, std::function<void(Communicator&)> body);

}  // namespace wideload::comm
