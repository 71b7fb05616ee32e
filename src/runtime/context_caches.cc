#include "runtime/context_caches.h"

#include <algorithm>

#include "base/error.h"
#include "runtime/rank.h"

namespace wideload::runtime {

CacheCard CacheCard::Of(const EngineOptions& options, std::string_view job) {
  CacheCard card{.job = {},
                 .layout = options.layout,
                 .num_micro_batches = options.num_micro_batches,
                 .kernels = options.kernels,
                 .num_kv_blocks = options.num_kv_blocks,
                 .max_num_tokens = options.max_num_tokens,
                 .max_batch_size = options.max_batch_size};
  WIDELOAD_CHECK(job.size() < card.job.size(), "the name of a job is {}", job);
  std::ranges::copy(job, card.job.begin());
  if (options.stage_layers.size() > kMostStages)
    Throw(ErrorKind::kUnsupported,
          "pp_partition has {} stages; servers in processes hand prompts over with up to {}",
          options.stage_layers.size(), kMostStages);
  std::ranges::copy(options.stage_layers, card.stage_layers.begin());
  return card;
}

EngineOptions CacheCard::Options() const {
  EngineOptions options;
  options.layout = layout;
  if (stage_layers.front() > 0)
    options.stage_layers.assign(stage_layers.begin(), stage_layers.begin() + layout.pp);
  options.num_micro_batches = num_micro_batches;
  options.kernels = kernels;
  options.num_kv_blocks = num_kv_blocks;
  options.max_num_tokens = max_num_tokens;
  options.max_batch_size = max_batch_size;
  return options;
}

SegmentName CacheSegment(std::string_view job, int rank) {
  return {.job = std::string(job), .name = fmt::format("cache-{}", rank)};
}

SharedMemory MakeCacheSegment(const model::ModelSpec& spec, const EngineOptions& options,
                              std::string_view job, int rank) {
  return SharedMemory::Create(CacheSegment(job, rank), CacheBytesOf(spec, options, rank));
}

void ContextCaches::Attach(const model::ModelSpec& spec, const CacheCard& card,
                           std::span<const CachePlace> places) {
  const EngineOptions options = card.Options();
  Server server{.spec = &spec,
                .options = options,
                .segments = {},
                .caches = {},
                .readers = {},
                .classes = CacheShapeOf(spec, options, 0).classes};
  for (int rank = 0; rank < options.num_ranks(); ++rank) {
    const CachePlace place = places.empty() ? CachePlace{} : places[static_cast<size_t>(rank)];
    SharedMemory& segment = server.segments.emplace_back();
    std::vector<kv::PagedCache>& caches = server.caches.emplace_back();
    std::unique_ptr<BlockReader>& reader = server.readers.emplace_back();
    if (!place.is_mapped) {
      reader = std::make_unique<BlockReader>(
          place.service, fmt::format("rank {} of context server {}", rank, servers_.size()),
          longest_silence_);
      continue;
    }
    segment = SharedMemory::Attach(CacheSegment(card.job.data(), rank));
    const std::span<std::byte> bytes = segment.bytes();
    const int64_t num_bytes = CacheBytesOf(spec, options, rank);
    if (std::ssize(bytes) != num_bytes)
      Throw(ErrorKind::kCorrupt,
            "the KV cache of rank {} of context server {} has {} bytes, not {}", rank,
            servers_.size(), bytes.size(), num_bytes);
    caches = CachesIn(bytes, CacheShapeOf(spec, options, rank), options.num_micro_batches);
  }
  servers_.push_back(std::move(server));
}

CachedSequence ContextCaches::SequenceOf(int32_t server, int32_t group,
                                         std::span<const BlockTable> tables) const {
  if (server < 0 || server >= std::ssize(servers_))
    Throw(ErrorKind::kCorrupt, "context server {} of {}", server, servers_.size());
  const Server& there = servers_[static_cast<size_t>(server)];
  const parallel::Layout& layout = there.options.layout;
  if (group < 0 || group >= layout.dp * there.options.num_micro_batches)
    Throw(ErrorKind::kCorrupt, "group {} of context server {}", group, server);
  const std::vector<kv::BlockClass>& classes = there.classes;
  if (tables.size() != classes.size())
    Throw(ErrorKind::kCorrupt, "{} tables of blocks for {} classes", tables.size(), classes.size());
  for (size_t c = 0; c < tables.size(); ++c)
    for (const int32_t block :
         std::span(tables[c].blocks).subspan(static_cast<size_t>(tables[c].num_given_back)))
      if (block < 0 || block >= classes[c].num_blocks)
        Throw(ErrorKind::kCorrupt, "block {} of context server {}, which has {}", block, server,
              classes[c].num_blocks);
  CachedSequence sequence{.spec = there.spec,
                          .parts = {},
                          .caches = {},
                          .tables = {tables.begin(), tables.end()},
                          .group = group,
                          .server = server};
  const auto micro_batch = static_cast<size_t>(MicroBatchOf(layout, group));
  for (const int32_t rank : RanksOfGroup(layout, group)) {
    const std::vector<kv::PagedCache>& caches = there.caches[static_cast<size_t>(rank)];
    sequence.parts.push_back(CachePartOf(there.options, there.spec->num_layers(), rank));
    sequence.caches.push_back(caches.empty() ? nullptr : &caches[micro_batch]);
  }
  return sequence;
}

// All ranks are asked before the first answer is read.
FetchResult ContextCaches::Fetch(const CachedSequence& from, const CachedPart& to,
                                 int64_t first_block, const std::function<void(bool)>& note_life) {
  const Server& there = servers_[static_cast<size_t>(from.server)];
  const std::vector<int32_t> ranks = RanksOfGroup(there.options.layout, from.group);
  const int32_t micro_batch = MicroBatchOf(there.options.layout, from.group);
  const auto reader = [&](size_t rank) {
    return there.readers[static_cast<size_t>(ranks[rank])].get();
  };
  for (size_t rank = 0; rank < from.caches.size(); ++rank)
    if (reader(rank) != nullptr)
      reader(rank)->Ask({.sequence = from, .rank = rank, .micro_batch = micro_batch}, to,
                        first_block);
  FetchResult all;
  for (size_t rank = 0; rank < from.caches.size(); ++rank) {
    if (reader(rank) == nullptr) {
      all.num_bytes += CopyFrom(from, rank, to, first_block);
      continue;
    }
    const FetchResult found = reader(rank)->Take(note_life);
    all.num_bytes += found.num_bytes;
    if (all.error.empty()) all.error = found.error;
  }
  return all;
}

}  // namespace wideload::runtime
