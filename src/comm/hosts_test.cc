#include "comm/hosts.h"

#include <gtest/gtest.h>

#include "comm/local/rank_threads.h"

namespace wideload::comm {
namespace {

HostId Named(char name) {
  HostId host;
  host.text[0] = name;
  return host;
}

TEST(GroupByHost, NumbersHostsByTheirFirstRank) {
  const std::vector<HostId> ids = {Named('b'), Named('b'), Named('a'), Named('b'), Named('a')};
  const Hosts hosts = GroupByHost(ids);
  EXPECT_EQ(hosts.num_hosts, 2);
  EXPECT_EQ(hosts.host_of_rank, (std::vector<int>{0, 0, 1, 0, 1}));
  EXPECT_TRUE(hosts.AreTogether(0, 3));
  EXPECT_FALSE(hosts.AreTogether(3, 4));
  EXPECT_EQ(hosts.LocalRank(3), 2);
  EXPECT_EQ(hosts.LocalSize(3), 3);
  EXPECT_EQ(hosts.LocalRank(4), 1);
  EXPECT_EQ(hosts.LocalSize(4), 2);
}

TEST(FindHosts, SeesThreadsOfOneProcessTogether) {
  LocalGroup group(3, {});
  const RankOutcome outcome = RunRanks(
      group, [](Communicator& communicator) { EXPECT_EQ(FindHosts(communicator).num_hosts, 1); });
  EXPECT_TRUE(outcome.ok()) << outcome.error;
}

}  // namespace
}  // namespace wideload::comm
