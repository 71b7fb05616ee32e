// Which part of a sequence's keys and values each rank of its group has in its cache, and what one
// rank takes of another one's: the map from layers, heads and positions of one layout to those of
// another. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kv/paged_cache.h"
#include "model/spec.h"
#include "parallel/mapping.h"
#include "runtime/engine_options.h"
#include "runtime/scheduler.h"

namespace wideload::runtime {

// The part that one rank has: of its stage's layers its heads, in the blocks whose turn it is.
struct CachePart {
  parallel::Shard layers;
  model::TensorRank heads;
  // Block i of a sequence, of kv::kBlockTokens positions, is here if i mod num_turns is turn.
  int32_t turn = 0;
  int32_t num_turns = 1;
};

// That of a rank of an engine of a model with so many layers.
CachePart CachePartOf(const EngineOptions& options, int64_t num_layers, int32_t rank);

// The ranks that have the sequences of a group together: stage by stage, in each turn by turn, in
// each the heads in order. Groups are the scheduler's, of all micro-batches.
std::vector<int32_t> RanksOfGroup(const parallel::Layout& layout, int32_t group);
// The micro-batch of such a group, which says in which of its caches a rank has its sequences.
inline int32_t MicroBatchOf(const parallel::Layout& layout, int32_t group) {
  return group / layout.dp;
}

// Two ranks of engines of one model, of which one hands over to the other.
struct PartLink {
  CachePart from;
  CachePart to;
};
enum class LinkEnd { kFrom, kTo };
// Some bytes of a block.
struct BlockPiece {
  int64_t offset = 0;
  int64_t num_bytes = 0;
};

// What `link.to` takes from `link.from` of each block of a class, as it lies in a block of `cache`,
// which is that of one `end`: the other end has as many pieces of the same sizes. Between groups
// whose heads are on as many ranks the layers that both have in one piece, from the same rank; else
// of each of these layers the heads that it has, each from the first rank that has them.
std::vector<BlockPiece> PiecesOf(const model::ModelSpec& spec, const kv::PagedCache& cache,
                                 int64_t block_class, const PartLink& link, LinkEnd end);

// A block of the cache of one rank that goes into one of another's.
struct BlockMove {
  int32_t from = 0;
  int32_t to = 0;
  bool operator==(const BlockMove&) const = default;
};

// Of a sequence with the table `from` there and `to` here, the blocks that link.from has, has not
// given back, and link.to wants: those from `first_block` of its own table on. In their order.
std::vector<BlockMove> MovesOf(const BlockTable& from, const BlockTable& to, const PartLink& link,
                               int64_t first_block);
// Whether `to` has a block for all that `from` has of a sequence, from `first_block` of its own on.
// Else there are no MovesOf them. The turns of `link` are those of their groups, whichever ranks.
bool TakesAll(const BlockTable& from, const BlockTable& to, const PartLink& link,
              int64_t first_block);

// The caches of a rank's micro-batches, in memory of somebody else's that holds them one behind the
// other. Errors: none; the memory must be large enough (kv::PagedCache).
std::vector<kv::PagedCache> CachesIn(std::span<std::byte> memory, const kv::CacheShape& shape,
                                     int32_t num_micro_batches);

}  // namespace wideload::runtime
