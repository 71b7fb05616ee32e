// The KV caches of context servers, seen from a process that is a rank of a generation server: on
// the same host mapped, so that blocks are copied once and nobody is asked; else read from the rank
// that has them (BlockService). Filled once, then asked by any thread; Fetch is the rank's own.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/shared_memory.h"
#include "comm/life_port.h"
#include "kv/paged_cache.h"
#include "model/spec.h"
#include "runtime/cached_prompt.h"
#include "runtime/engine_options.h"
#include "runtime/servers/block_reader.h"

namespace wideload::runtime {

// How others find the caches of a server's ranks. Plain bytes: servers send it to each other.
struct CacheCard {
  static constexpr size_t kMostStages = 128;
  std::array<char, 64> job{};  // of its segments
  parallel::Layout layout;
  std::array<int32_t, kMostStages> stage_layers{};  // EngineOptions'; all 0: none
  int32_t num_micro_batches = 1;
  compute::KernelSet kernels = compute::KernelSet::kReference;
  int64_t num_kv_blocks = 0;
  int64_t max_num_tokens = 0;
  int64_t max_batch_size = 0;

  // Those of an engine whose ranks have their caches in segments of `job`. Errors: kUnsupported for
  // stages above kMostStages with numbers of layers of their own.
  static CacheCard Of(const EngineOptions& options, std::string_view job);
  // As far as caches go.
  EngineOptions Options() const;
};

// The segment of a rank's caches.
SegmentName CacheSegment(std::string_view job, int rank);
// Makes it. Errors: as SharedMemory::Create.
SharedMemory MakeCacheSegment(const model::ModelSpec& spec, const EngineOptions& options,
                              std::string_view job, int rank);

// How a generation rank gets at the cache of a context rank: its segment is mapped, or its
// BlockService asked.
struct CachePlace {
  bool is_mapped = true;
  comm::LifeCard service = {};
};

class ContextCaches {
 public:
  // A context rank that is asked and says nothing for `longest_silence` is given up.
  explicit ContextCaches(std::chrono::milliseconds longest_silence = std::chrono::seconds(5))
      : longest_silence_(longest_silence) {}
  // Maps the caches of the next server, whose model `spec` is, or connects to its ranks; spec must
  // outlive this. `places`: of each rank; none: all are mapped. Errors: as SharedMemory::Attach;
  // kCorrupt for a segment of another size; kRunFailed for a rank that is not to be reached.
  void Attach(const model::ModelSpec& spec, const CacheCard& card,
              std::span<const CachePlace> places = {});
  size_t num_servers() const { return servers_.size(); }

  // A sequence of a group there, with null for caches that are not mapped; valid as long as this.
  // Errors: kCorrupt for a server, group or block that is not there.
  CachedSequence SequenceOf(int32_t server, int32_t group,
                            std::span<const BlockTable> tables) const;

  // CopyPart of one that SequenceOf gave, wherever it lies. Where the result has an error some of
  // the blocks of `to` may have been written. `note_life` is called while ranks are asked: with
  // whether something has come since.
  FetchResult Fetch(const CachedSequence& from, const CachedPart& to, int64_t first_block,
                    const std::function<void(bool)>& note_life);

 private:
  struct Server {
    const model::ModelSpec* spec = nullptr;
    EngineOptions options;                              // as far as caches go
    std::vector<SharedMemory> segments;                 // [ranks]; empty of those that are asked
    std::vector<std::vector<kv::PagedCache>> caches;    // [ranks][micro-batches], likewise
    std::vector<std::unique_ptr<BlockReader>> readers;  // [ranks]; null: it is mapped
    std::vector<kv::BlockClass> classes;                // of each rank
  };
  std::chrono::milliseconds longest_silence_;
  std::vector<Server> servers_;
};

}  // namespace wideload::runtime
