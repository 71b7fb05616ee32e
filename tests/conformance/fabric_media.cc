// Fabrics within this host that need no launcher: of threads, and of forked processes.
#include "conformance/fabric_media.h"

#include <gtest/gtest.h>

#include <thread>

#include "exchange/local_fabric.h"
#include "exchange/shm_fabric.h"
#include "support/rank_processes.h"

namespace wideload::exchange {
namespace {

void RunLocal(int num_ranks, int64_t segment_bytes, std::function<void(Fabric&)> body) {
  LocalFabrics fabrics(num_ranks, segment_bytes);
  std::vector<std::jthread> threads;
  for (int r = 0; r < num_ranks; ++r) threads.emplace_back([&, r] { body(fabrics.rank(r)); });
}

void RunShm(int num_ranks, int64_t segment_bytes, std::function<void(Fabric&)> body) {
  const std::string job = FreshJobName();
  const auto outcome = RunRankProcesses(num_ranks, {}, job, [&](comm::Communicator& group) {
    ShmFabric fabric(group, segment_bytes, job);
    body(fabric);
  });
  EXPECT_TRUE(outcome.ranks.ok()) << outcome.ranks.error;
}

}  // namespace

const std::vector<FabricMedium>& FabricMedia() {
  static const std::vector<FabricMedium> media = {{"local", RunLocal}, {"shm", RunShm}};
  return media;
}

}  // namespace wideload::exchange
