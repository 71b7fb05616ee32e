#include "exchange/make_fabric.h"

#include <charconv>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "exchange/delayed_fabric.h"
#include "exchange/mpi_fabric.h"
#include "exchange/shm_fabric.h"

namespace wideload::exchange {

Medium MediumFor(const comm::Hosts& hosts) {
  if (hosts.num_hosts == 1) return Medium::kSharedMemory;
  const auto num_ranks = static_cast<int>(hosts.host_of_rank.size());
  return hosts.num_hosts == num_ranks ? Medium::kMpi : Medium::kMixed;
}

std::string MediumText(const comm::Hosts& hosts) {
  switch (MediumFor(hosts)) {
    case Medium::kSharedMemory:
      return "shared memory";
    case Medium::kMpi:
      return fmt::format("MPI between {} hosts", hosts.num_hosts);
    case Medium::kMixed:
      return fmt::format("shared memory within {} hosts, MPI between them", hosts.num_hosts);
  }
  WIDELOAD_CHECK(false, "unreachable");
}

MadeFabric MakeFabric(comm::Communicator& group, const FabricOptions& options) {
  MadeFabric made{.fabric = nullptr, .hosts = comm::FindHosts(group), .text = {}};
  made.text = MediumText(made.hosts);
  if (MediumFor(made.hosts) == Medium::kSharedMemory) {
    made.fabric = std::make_unique<ShmFabric>(group, options.segment_bytes, options.place.job,
                                              options.place.folder, options.total_threads);
    return made;
  }
  made.fabric =
      std::make_unique<MpiFabric>(group, made.hosts, options.segment_bytes, options.place);
  const auto delay = options.delay.count() > 0
                         ? options.delay
                         : DelayFrom([](const char* name) { return std::getenv(name); });
  if (delay.count() == 0) return made;
  made.fabric = std::make_unique<DelayedFabric>(std::move(made.fabric), delay);
  made.text += fmt::format(", {} us late", delay.count());
  return made;
}

std::chrono::microseconds DelayFrom(const std::function<const char*(const char*)>& variable) {
  constexpr int64_t kMaxUs = 10'000'000;
  const char* const text = variable("WIDELOAD_FABRIC_DELAY_US");
  if (text == nullptr) return {};
  int64_t value = -1;
  const auto [end, code] = std::from_chars(text, text + std::strlen(text), value);
  if (code != std::errc() || *end != '\0' || value < 0 || value > kMaxUs)
    Throw(ErrorKind::kInvalid, "WIDELOAD_FABRIC_DELAY_US is '{}'; it must be 0 to {}", text,
          kMaxUs);
  return std::chrono::microseconds(value);
}

}  // namespace wideload::exchange
