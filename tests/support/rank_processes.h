// Ranks of tests as forked processes of this host, and counters that all of them see.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/local/rank_threads.h"

namespace wideload {

// Zero at first; lies in memory that later forks share, or that given to TakeFrom.
class SharedCounter {
 public:
  SharedCounter();
  ~SharedCounter();
  // Counters made from now on lie one after the other in `memory`, which is zero and which all
  // processes map that make the same counters in the same order. For processes that nobody forked.
  static void TakeFrom(std::span<std::byte> memory);
  SharedCounter(const SharedCounter&) = delete;
  SharedCounter& operator=(const SharedCounter&) = delete;
  std::atomic<uint32_t>* operator->() const { return value_; }
  std::atomic<uint32_t>& operator*() const { return *value_; }

 private:
  std::atomic<uint32_t>* value_;
};

// A job name that no other test of this host uses, a new one at every call.
std::string FreshJobName();

struct ProcessOutcome {
  comm::RankOutcome ranks;
  std::vector<int> killed_ranks;  // ended by a signal
};

// Forks a process per rank, joins them to a ShmCommunicator of `job` and runs body in each. An
// Error out of body ends the group; which came first is in the outcome. Failed expectations of a
// child fail the calling test.
ProcessOutcome RunRankProcesses(int num_ranks, comm::GroupOptions options, const std::string& job,
                                const std::function<void(comm::Communicator&)>& body);

}  // namespace wideload
