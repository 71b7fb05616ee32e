// Which ranks of a group are on the same host. Pure, but for FindHosts.
#pragma once

#include <span>
#include <vector>

#include "base/host.h"
#include "comm/communicator.h"

namespace wideload::comm {

struct Hosts {
  // [num_ranks]: hosts are numbered in the order of their first ranks.
  std::vector<int> host_of_rank;
  int num_hosts = 0;

  // Whether two ranks are on one host.
  bool AreTogether(int a, int b) const {
    return host_of_rank[static_cast<size_t>(a)] == host_of_rank[static_cast<size_t>(b)];
  }
  // Ranks below `rank` on its host, and all ranks there.
  int LocalRank(int rank) const;
  // Ranks on the host of `rank`, itself counted.
  int LocalSize(int rank) const;
};

// Hosts are numbered in the order of their first ranks.
Hosts GroupByHost(std::span<const HostId> host_of_rank);

// Collective over `group`. Errors: as ThisHost; PeerLost.
Hosts FindHosts(Communicator& group);

}  // namespace wideload::comm
