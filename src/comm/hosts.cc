#include "comm/hosts.h"

#include <algorithm>

namespace wideload::comm {

int Hosts::LocalRank(int rank) const {
  return static_cast<int>(std::count(host_of_rank.begin(), host_of_rank.begin() + rank,
                                     host_of_rank[static_cast<size_t>(rank)]));
}

int Hosts::LocalSize(int rank) const {
  return static_cast<int>(std::count(host_of_rank.begin(), host_of_rank.end(),
                                     host_of_rank[static_cast<size_t>(rank)]));
}

Hosts GroupByHost(std::span<const HostId> host_of_rank) {
  Hosts hosts;
  for (size_t r = 0; r < host_of_rank.size(); ++r) {
    const auto first =
        static_cast<size_t>(std::find(host_of_rank.begin(), host_of_rank.end(), host_of_rank[r]) -
                            host_of_rank.begin());
    hosts.host_of_rank.push_back(first < r ? hosts.host_of_rank[first] : hosts.num_hosts++);
  }
  return hosts;
}

Hosts FindHosts(Communicator& group) {
  std::vector<HostId> all(static_cast<size_t>(group.size()));
  group.AllGatherValue(ThisHost(), std::span(all));
  return GroupByHost(all);
}

}  // namespace wideload::comm
