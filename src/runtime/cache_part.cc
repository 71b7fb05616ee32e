#include "runtime/cache_part.h"

#include <algorithm>

#include "base/error.h"

namespace wideload::runtime {
namespace {

// The KV heads of a layer that a rank of a group has. Latent attention has one, on every rank.
parallel::Shard KvHeadsOf(const model::LayerSpec& layer, const model::TensorRank& rank) {
  const auto* const gqa = std::get_if<model::GqaSpec>(&layer.attention);
  return gqa != nullptr ? model::HeadsOf(*gqa, rank).kv : parallel::Shard{.begin = 0, .end = 1};
}

// What one rank takes from another one of a layer's heads; nothing of those that an earlier rank
// of the other's group has, too.
parallel::Shard HeadsTaken(const model::LayerSpec& layer, const model::TensorRank& from,
                           const model::TensorRank& to) {
  const parallel::Shard own = KvHeadsOf(layer, to);
  parallel::Shard taken = KvHeadsOf(layer, from);
  if (from.size == to.size) {
    if (from.rank != to.rank) taken.end = taken.begin;
    return taken;
  }
  if (from.rank > 0)
    taken.begin =
        std::max(taken.begin, KvHeadsOf(layer, {.rank = from.rank - 1, .size = from.size}).end);
  taken.begin = std::max(taken.begin, own.begin);
  taken.end = std::max(taken.begin, std::min(taken.end, own.end));
  return taken;
}

// Blocks of a sequence, as one rank alone would count them.
struct BlockRange {
  int64_t begin = 0;
  int64_t end = 0;
};

BlockRange RangeOf(const BlockTable& from, const PartLink& link, int64_t first_block) {
  const int64_t from_turns = link.from.num_turns;
  const int64_t to_turns = link.to.num_turns;
  return {.begin = std::max(first_block * to_turns, from.num_given_back * from_turns),
          .end = std::ssize(from.blocks) * from_turns};
}

}  // namespace

CachePart CachePartOf(const EngineOptions& options, int64_t num_layers, int32_t rank) {
  const parallel::Coordinates place = parallel::CoordinatesOf(options.layout, rank);
  return {.layers = options.LayersOf(place.pp, num_layers),
          .heads = {.rank = place.tp, .size = options.layout.tp},
          .turn = place.cp,
          .num_turns = options.layout.cp};
}

std::vector<int32_t> RanksOfGroup(const parallel::Layout& layout, int32_t group) {
  std::vector<int32_t> ranks;
  for (int32_t pp = 0; pp < layout.pp; ++pp)
    for (int32_t cp = 0; cp < layout.cp; ++cp)
      for (int32_t tp = 0; tp < layout.tp; ++tp)
        ranks.push_back(((pp * layout.cp + cp) * layout.dp + group % layout.dp) * layout.tp + tp);
  return ranks;
}

std::vector<BlockPiece> PiecesOf(const model::ModelSpec& spec, const kv::PagedCache& cache,
                                 int64_t block_class, const PartLink& link, LinkEnd end) {
  if (cache.shape().classes[static_cast<size_t>(block_class)].num_blocks == 0) return {};
  const bool is_of_same_heads = link.from.heads.size == link.to.heads.size;
  const std::byte* const block = cache.Block(block_class, 0).data();
  std::vector<BlockPiece> pieces;
  for (int64_t i = std::max(link.from.layers.begin, link.to.layers.begin);
       i < std::min(link.from.layers.end, link.to.layers.end); ++i) {
    if (cache.block_class(i) != block_class) continue;
    const model::LayerSpec& layer = spec.layers[static_cast<size_t>(i)];
    const parallel::Shard taken = HeadsTaken(layer, link.from.heads, link.to.heads);
    if (taken.size() == 0) continue;
    const CachePart& own = end == LinkEnd::kFrom ? link.from : link.to;
    const int64_t first = KvHeadsOf(layer, own.heads).begin;
    for (const TensorView& part : {cache.Keys(i), cache.Values(i)}) {
      if (part.empty()) continue;
      const int64_t head_bytes = part.dim(2) * part.dim(3) * DTypeBytes(part.dtype());
      const BlockPiece piece{.offset = static_cast<const std::byte*>(part.raw()) - block +
                                       (taken.begin - first) * head_bytes,
                             .num_bytes = taken.size() * head_bytes};
      if (is_of_same_heads && !pieces.empty())
        pieces.back().num_bytes += piece.num_bytes;  // which lies behind it, on both ends
      else
        pieces.push_back(piece);
    }
  }
  return pieces;
}

// A table of so many turns has block b of the sequence at its place b / turns.
std::vector<BlockMove> MovesOf(const BlockTable& from, const BlockTable& to, const PartLink& link,
                               int64_t first_block) {
  WIDELOAD_CHECK(TakesAll(from, to, link, first_block),
                 "blocks {} to {} in turns of {} for {} in turns of {}, of which {} are given back",
                 from.num_given_back, from.blocks.size(), link.from.num_turns, to.blocks.size(),
                 link.to.num_turns, to.num_given_back);
  const int64_t from_turns = link.from.num_turns;
  const int64_t to_turns = link.to.num_turns;
  const BlockRange range = RangeOf(from, link, first_block);
  const int64_t end = std::min(range.end, std::ssize(to.blocks) * to_turns);
  std::vector<BlockMove> moves;
  for (int64_t b = std::max(range.begin, to.num_given_back * to_turns); b < end; ++b)
    if (b % from_turns == link.from.turn && b % to_turns == link.to.turn)
      moves.push_back({.from = from.blocks[static_cast<size_t>(b / from_turns)],
                       .to = to.blocks[static_cast<size_t>(b / to_turns)]});
  return moves;
}

// Where the two have blocks in other turns, one of them rounds up to more of them, and gives fewer
// back.
bool TakesAll(const BlockTable& from, const BlockTable& to, const PartLink& link,
              int64_t first_block) {
  const BlockRange range = RangeOf(from, link, first_block);
  if (range.begin >= range.end) return true;
  return std::ssize(to.blocks) * link.to.num_turns > range.end - link.from.num_turns &&
         to.num_given_back * link.to.num_turns < range.begin + link.from.num_turns;
}

std::vector<kv::PagedCache> CachesIn(std::span<std::byte> memory, const kv::CacheShape& shape,
                                     int32_t num_micro_batches) {
  std::vector<kv::PagedCache> caches;
  const auto num_bytes = static_cast<size_t>(shape.num_bytes());
  for (size_t i = 0; i < static_cast<size_t>(num_micro_batches); ++i)
    caches.emplace_back(shape, memory.subspan(i * num_bytes, num_bytes));
  return caches;
}

}  // namespace wideload::runtime
