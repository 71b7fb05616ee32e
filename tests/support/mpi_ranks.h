// Ranks of tests as the processes that mpirun or srun started. Every process runs all tests; those
// beyond the ranks of a test wait for its end.
#pragma once

#include <functional>
#include <string>

#include "comm/communicator.h"
#include "comm/local/rank_threads.h"

namespace wideload {

// main() of such a test program: joins the processes, then runs all tests of GoogleTest.
// `--hosts N` (N >= 2) before them makes the processes, in N equal blocks, take each other for
// processes of N hosts. SharedCounters lie in /dev/shm, or in the folder WIDELOAD_TEST_FOLDER,
// which must then be one of all hosts.
int RunMpiTests(int argc, char** argv);

int NumMpiRanks();

// Runs body on the first num_ranks processes, as RunRankProcesses does; called by all of them.
comm::RankOutcome RunMpiRanks(int num_ranks, comm::GroupOptions options,
                              const std::function<void(comm::Communicator&)>& body);

// A name that all ranks of the group get, another one at every call. Collective.
std::string CommonJobName(comm::Communicator& group);

}  // namespace wideload
