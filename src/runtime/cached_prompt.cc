#include "runtime/cached_prompt.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace wideload::runtime {
namespace {

// The KV heads of a layer that a rank of a group has. Latent attention has one, on every rank.
parallel::Shard KvHeadsOf(const model::LayerSpec& layer, const model::TensorRank& rank) {
  const auto* const gqa = std::get_if<model::GqaSpec>(&layer.attention);
  return gqa != nullptr ? model::HeadsOf(*gqa, rank).kv : parallel::Shard{.begin = 0, .end = 1};
}

model::TensorRank RankOf(const CachedSequence& sequence, size_t rank) {
  return {.rank = static_cast<int32_t>(rank), .size = static_cast<int32_t>(sequence.caches.size())};
}

// What one rank takes from another one of a layer's heads; nothing of those that an earlier rank
// of the other's group has, too.
parallel::Shard HeadsTaken(const model::LayerSpec& layer, const PartLink& link) {
  const parallel::Shard own = KvHeadsOf(layer, link.to);
  parallel::Shard taken = KvHeadsOf(layer, link.from);
  if (link.from.rank > 0)
    taken.begin = std::max(
        taken.begin, KvHeadsOf(layer, {.rank = link.from.rank - 1, .size = link.from.size}).end);
  taken.begin = std::max(taken.begin, own.begin);
  taken.end = std::max(taken.begin, std::min(taken.end, own.end));
  return taken;
}

}  // namespace

std::vector<BlockPiece> PiecesOf(const model::ModelSpec& spec, const kv::PagedCache& cache,
                                 int64_t block_class, const PartLink& link, LinkEnd end) {
  if (cache.shape().classes[static_cast<size_t>(block_class)].num_blocks == 0) return {};
  if (link.from.size == link.to.size) {
    if (link.from.rank != link.to.rank) return {};
    return {{.offset = 0, .num_bytes = std::ssize(cache.Block(block_class, 0))}};
  }
  std::vector<BlockPiece> pieces;
  for (int64_t i = 0; i < spec.num_layers(); ++i) {
    if (cache.block_class(i) != block_class) continue;
    const model::LayerSpec& layer = spec.layers[static_cast<size_t>(i)];
    const parallel::Shard taken = HeadsTaken(layer, link);
    if (taken.size() == 0) continue;
    const int64_t first = KvHeadsOf(layer, end == LinkEnd::kFrom ? link.from : link.to).begin;
    const std::byte* const block = cache.Block(block_class, 0).data();
    for (const TensorView& part : {cache.Keys(i), cache.Values(i)}) {
      if (part.empty()) continue;
      const int64_t head_bytes = part.dim(2) * part.dim(3) * DTypeBytes(part.dtype());
      pieces.push_back({.offset = static_cast<const std::byte*>(part.raw()) - block +
                                  (taken.begin - first) * head_bytes,
                        .num_bytes = taken.size() * head_bytes});
    }
  }
  return pieces;
}

std::span<const int32_t> HandedOver(const BlockTable& table, int64_t first_block) {
  const auto begin = static_cast<size_t>(std::max(first_block, table.num_given_back));
  return begin < table.blocks.size() ? std::span(table.blocks).subspan(begin)
                                     : std::span<const int32_t>();
}

std::span<const int32_t> TakenInto(const BlockTable& to, const BlockTable& from,
                                   int64_t first_block) {
  const size_t count = HandedOver(from, first_block).size();
  if (count == 0) return {};
  const size_t end = from.blocks.size();
  WIDELOAD_CHECK(to.blocks.size() >= end && std::cmp_less_equal(to.num_given_back, end - count),
                 "blocks {} to {} for {} of which {} are given back", end - count, end,
                 to.blocks.size(), to.num_given_back);
  return std::span(to.blocks).subspan(end - count, count);
}

int64_t CopyFrom(const CachedSequence& from, size_t rank, const CachedPart& to,
                 int64_t first_block) {
  WIDELOAD_CHECK(from.tables.size() == to.tables.size(), "{} block classes for {}",
                 from.tables.size(), to.tables.size());
  WIDELOAD_CHECK(from.caches[rank] != nullptr, "the cache of rank {} is out of reach", rank);
  const PartLink link{.from = RankOf(from, rank), .to = to.rank};
  const kv::PagedCache& cache = *from.caches[rank];
  int64_t num_bytes = 0;
  for (size_t c = 0; c < from.tables.size(); ++c) {
    const std::span<const int32_t> sources = HandedOver(from.tables[c], first_block);
    if (sources.empty()) continue;
    const std::span<const int32_t> targets = TakenInto(to.tables[c], from.tables[c], first_block);
    const auto block_class = static_cast<int64_t>(c);
    const auto there = PiecesOf(*from.spec, cache, block_class, link, LinkEnd::kFrom);
    const auto here = PiecesOf(*from.spec, to.cache, block_class, link, LinkEnd::kTo);
    for (size_t i = 0; i < there.size(); ++i) {
      WIDELOAD_CHECK(there[i].num_bytes == here[i].num_bytes, "{} bytes of a block for {}",
                     there[i].num_bytes, here[i].num_bytes);
      for (size_t b = 0; b < sources.size(); ++b)
        std::memcpy(to.cache.Block(block_class, targets[b]).data() + here[i].offset,
                    cache.Block(block_class, sources[b]).data() + there[i].offset,
                    static_cast<size_t>(there[i].num_bytes));
      num_bytes += std::ssize(sources) * there[i].num_bytes;
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
        CopyPart(from, {.rank = RankOf(to, rank), .cache = *to.caches[rank], .tables = to.tables},
                 first_block);
  return num_bytes;
}

std::string HandOverRefusal(const EngineOptions& from, const EngineOptions& to) {
  for (const EngineOptions* options : {&from, &to}) {
    if (options->layout.pp > 1)
      return fmt::format(
          "pipeline_parallel_size is {}: stages do not hand prompts over to another engine",
          options->layout.pp);
    if (options->layout.cp > 1)
      return fmt::format(
          "context_parallel_size is {}: ranks that share contexts do not hand prompts over to "
          "another engine",
          options->layout.cp);
  }
  if (from.kernels != to.kernels)
    return fmt::format(
        "kernels are {} and {}: engines that hand prompts over to each other need the same",
        KernelSetName(from.kernels), KernelSetName(to.kernels));
  return "";
}

}  // namespace wideload::runtime
