// The KV caches of context servers, seen from a process that is a rank of a generation server on
// the same host: mapped, so that blocks are copied once and nobody is asked. Filled once, then read
// by any thread.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/shared_memory.h"
#include "kv/paged_cache.h"
#include "model/spec.h"
#include "runtime/cached_prompt.h"
#include "runtime/engine_options.h"

namespace wideload::runtime {

// How others find the caches of a server's ranks. Plain bytes: servers send it to each other.
struct CacheCard {
  std::array<char, 64> job{};  // of its segments
  int32_t tp = 1;
  int32_t dp = 1;
  compute::KernelSet kernels = compute::KernelSet::kReference;
  int64_t num_kv_blocks = 0;
  int64_t max_num_tokens = 0;
  int64_t max_batch_size = 0;

  // Those of an engine whose ranks have their caches in segments of `job`.
  static CacheCard Of(const EngineOptions& options, std::string_view job);
  // As far as caches go.
  EngineOptions Options() const;
};

// The segment of a rank's cache.
SegmentName CacheSegment(std::string_view job, int rank);
// Makes it. Errors: as SharedMemory::Create.
SharedMemory MakeCacheSegment(const model::ModelSpec& spec, const EngineOptions& options,
                              std::string_view job, int rank);

class ContextCaches {
 public:
  // Maps the caches of the next server, whose model `spec` is; it must outlive this. Errors: as
  // SharedMemory::Attach; kCorrupt for a segment of another size.
  void Attach(const model::ModelSpec& spec, const CacheCard& card);
  size_t num_servers() const { return servers_.size(); }

  // A sequence of a group there; valid as long as this. Errors: kCorrupt for a server, group or
  // block that is not there.
  CachedSequence SequenceOf(int32_t server, int32_t group,
                            std::span<const BlockTable> tables) const;

 private:
  struct Server {
    const model::ModelSpec* spec = nullptr;
    int32_t tp = 1;
    std::vector<SharedMemory> segments;  // [ranks]
    std::vector<kv::PagedCache> caches;  // [ranks]
  };
  std::vector<Server> servers_;
};

}  // namespace wideload::runtime
