// Chooses the Fabric for the ranks of a job: shared memory within a host, MPI between hosts.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "comm/hosts.h"
#include "exchange/fabric.h"
#include "exchange/shm_segments.h"

namespace wideload::exchange {

// What rows travel through.
enum class Medium { kSharedMemory, kMpi, kMixed };

// All ranks on one host; each on its own; or hosts with several ranks. Pure.
Medium MediumFor(const comm::Hosts& hosts);
// In words, for the line a start prints: "shared memory within 2 hosts, MPI between them". Pure.
std::string MediumText(const comm::Hosts& hosts);

// What a fabric is for.
struct FabricOptions {
  int64_t segment_bytes = 0;
  ShmPlace place = {};
  int total_threads = 0;  // as in LocalFabrics
  // What other hosts announce is seen so much later: for tests of slow networks. 0: as DelayFrom.
  std::chrono::microseconds delay{0};
};

// A fabric and what was chosen for it.
struct MadeFabric {
  std::unique_ptr<Fabric> fabric;
  comm::Hosts hosts;
  std::string text;  // MediumText, and the delay if there is one
};

// For ranks that are processes. Collective over `group`, which outlives the fabric. Errors: as the
// fabrics of shm_fabric.h and mpi_fabric.h.
MadeFabric MakeFabric(comm::Communicator& group, const FabricOptions& options);

// The value of the environment variable WIDELOAD_FABRIC_DELAY_US, 0 without it. `variable` returns
// the value of an environment variable or null (std::getenv). Errors: kInvalid unless 0 to 10^7.
std::chrono::microseconds DelayFrom(const std::function<const char*(const char*)>& variable);

}  // namespace wideload::exchange
