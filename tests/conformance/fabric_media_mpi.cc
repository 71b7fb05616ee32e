// Fabrics of the processes that mpirun started: what MakeFabric chooses for them, messages between
// all of them, and both media in one job.
#include <gtest/gtest.h>

#include "conformance/fabric_media.h"
#include "exchange/delayed_fabric.h"
#include "exchange/make_fabric.h"
#include "exchange/mpi_fabric.h"
#include "support/mpi_ranks.h"

namespace wideload::exchange {
namespace {

using Body = std::function<void(Fabric&)>;
using Make = std::function<std::unique_ptr<Fabric>(comm::Communicator&, int64_t segment_bytes)>;

auto Running(Make make) {
  return [make](int num_ranks, int64_t segment_bytes, const Body& body) {
    const auto outcome = RunMpiRanks(num_ranks, {}, [&](comm::Communicator& group) {
      const auto fabric = make(group, segment_bytes);
      body(*fabric);
    });
    EXPECT_TRUE(outcome.ok()) << outcome.error;
  };
}

std::unique_ptr<Fabric> Chosen(comm::Communicator& group, int64_t segment_bytes) {
  const FabricOptions options{.segment_bytes = segment_bytes,
                              .place = {.job = CommonJobName(group)}};
  return MakeFabric(group, options).fabric;
}

// Every rank for itself, whatever host it is on.
std::unique_ptr<Fabric> AllMessages(comm::Communicator& group, int64_t segment_bytes) {
  comm::Hosts hosts{.host_of_rank = {}, .num_hosts = group.size()};
  for (int r = 0; r < group.size(); ++r) hosts.host_of_rank.push_back(r);
  return std::make_unique<MpiFabric>(group, hosts, segment_bytes,
                                     ShmPlace{.job = CommonJobName(group)});
}

std::unique_ptr<Fabric> Late(comm::Communicator& group, int64_t segment_bytes) {
  return std::make_unique<DelayedFabric>(AllMessages(group, segment_bytes),
                                         std::chrono::microseconds(300));
}

}  // namespace

const std::vector<FabricMedium>& FabricMedia() {
  static const std::vector<FabricMedium> media = {{"chosen", Running(Chosen), NumMpiRanks()},
                                                  {"messages", Running(AllMessages), NumMpiRanks()},
                                                  {"late_messages", Running(Late), NumMpiRanks()}};
  return media;
}

}  // namespace wideload::exchange

int main(int argc, char** argv) { return wideload::RunMpiTests(argc, argv); }
