// Ranks within this host that need no launcher: threads, and forked processes.
#include "conformance/communicator_media.h"

#include "comm/local/local_communicator.h"
#include "support/rank_processes.h"

namespace wideload::comm {
namespace {

RankOutcome RunLocal(int num_ranks, GroupOptions options, std::function<void(Communicator&)> body) {
  LocalGroup group(num_ranks, std::move(options));
  return RunRanks(group, std::move(body));
}

RankOutcome RunShm(int num_ranks, GroupOptions options, std::function<void(Communicator&)> body) {
  return RunRankProcesses(num_ranks, std::move(options), FreshJobName(), body).ranks;
}

}  // namespace

const std::vector<CommunicatorMedium>& CommunicatorMedia() {
  static const std::vector<CommunicatorMedium> media = {{"local", RunLocal}, {"shm", RunShm}};
  return media;
}

}  // namespace wideload::comm
