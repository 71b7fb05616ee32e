#include "runtime/cached_prompt.h"

#include <cstring>

#include "base/error.h"

namespace wideload::runtime {

int64_t CopyFrom(const CachedSequence& from, size_t rank, const CachedPart& to,
                 int64_t first_block) {
  WIDELOAD_CHECK(from.tables.size() == to.tables.size(), "{} block classes for {}",
                 from.tables.size(), to.tables.size());
  WIDELOAD_CHECK(from.caches[rank] != nullptr, "the cache of rank {} is out of reach", rank);
  const PartLink link{.from = from.parts[rank], .to = to.part};
  const kv::PagedCache& cache = *from.caches[rank];
  int64_t num_bytes = 0;
  for (size_t c = 0; c < from.tables.size(); ++c) {
    const std::vector<BlockMove> moves = MovesOf(from.tables[c], to.tables[c], link, first_block);
    if (moves.empty()) continue;
    const auto block_class = static_cast<int64_t>(c);
    const auto there = PiecesOf(*from.spec, cache, block_class, link, LinkEnd::kFrom);
    const auto here = PiecesOf(*from.spec, to.cache, block_class, link, LinkEnd::kTo);
    for (size_t i = 0; i < there.size(); ++i) {
      WIDELOAD_CHECK(there[i].num_bytes == here[i].num_bytes, "{} bytes of a block for {}",
                     there[i].num_bytes, here[i].num_bytes);
      for (const BlockMove& move : moves)
        std::memcpy(to.cache.Block(block_class, move.to).data() + here[i].offset,
                    cache.Block(block_class, move.from).data() + there[i].offset,
                    static_cast<size_t>(there[i].num_bytes));
      num_bytes += std::ssize(moves) * there[i].num_bytes;
    }
  }
  return num_bytes;
}

int64_t CopyPart(const CachedSequence& from, const CachedPart& to, int64_t first_block) {
  int64_t num_bytes = 0;
  for (size_t rank = 0; rank < from.caches.size(); ++rank)
    num_bytes += CopyFrom(from, rank, to, first_block);
  return num_bytes;
}

int64_t CopySequence(const CachedSequence& from, const CachedSequence& to, int64_t first_block) {
  int64_t num_bytes = 0;
  for (size_t rank = 0; rank < to.caches.size(); ++rank)
    num_bytes +=
        CopyPart(from, {.part = to.parts[rank], .cache = *to.caches[rank], .tables = to.tables},
                 first_block);
  return num_bytes;
}

std::string HandOverRefusal(const EngineOptions& from, const EngineOptions& to) {
  if (from.kernels != to.kernels)
    return fmt::format(
        "kernels are {} and {}: engines that hand prompts over to each other need the same",
        KernelSetName(from.kernels), KernelSetName(to.kernels));
  return "";
}

}  // namespace wideload::runtime
