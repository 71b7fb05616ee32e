#include "model/context_blocks.h"

#include <algorithm>
#include <cstring>

#include "comm/communicator.h"

namespace wideload::model {

using compute::KvSequence;
using compute::PagedKv;

std::span<const SeenBlocks> FindSeen(const compute::AttentionShape& shape,
                                     std::span<const KvSequence> parts, int64_t block_tokens,
                                     Workspace& workspace) {
  const std::span<SeenBlocks> all = workspace.Take<SeenBlocks>(std::ssize(parts));
  size_t count = 0;
  for (const KvSequence& part : parts) {
    const SeenBlocks seen{
        .blocks = part.blocks,
        .first = shape.FirstVisible(part.start_position) / block_tokens,
        .end = (part.start_position + part.num_tokens + block_tokens - 1) / block_tokens};
    const auto known = std::ranges::find_if(all.first(count), [&](const SeenBlocks& other) {
      return other.blocks.data() == part.blocks.data();
    });
    if (known == all.first(count).end()) {
      all[count++] = seen;
      continue;
    }
    known->first = std::min(known->first, seen.first);
    known->end = std::max(known->end, seen.end);
  }
  return all.first(count);
}

namespace {

int64_t BlockBytes(const TensorView& blocks) {
  return blocks.empty() ? 0 : blocks.num_bytes() / blocks.dim(0);
}

// Copies, each with its keys before its values, as a cache of all parts.
PagedKv CacheOf(std::span<std::byte> copies, int64_t num_blocks, const PagedKv& like) {
  const int64_t element_bytes = DTypeBytes(like.keys.dtype());
  const int64_t key_bytes = BlockBytes(like.keys);
  const int64_t stride = (key_bytes + BlockBytes(like.values)) / element_bytes;
  const auto view = [&](const TensorView& blocks, int64_t first_byte) {
    return TensorView(blocks.dtype(), {num_blocks, blocks.dim(1), blocks.dim(2), blocks.dim(3)},
                      copies.data() + first_byte, stride);
  };
  return {.keys = view(like.keys, 0),
          .values = like.values.empty() ? TensorView() : view(like.values, key_bytes)};
}

void CopyBlock(const TensorView& from, int64_t from_block, const TensorView& to, int64_t to_block) {
  if (from.empty()) return;
  std::memcpy(static_cast<std::byte*>(to.raw_mutable()) + to_block * to.row_bytes(),
              static_cast<const std::byte*>(from.raw()) + from_block * from.row_bytes(),
              static_cast<size_t>(BlockBytes(from)));
}

}  // namespace

GatheredBlocks GatherBlocks(const RankContext& rank, const PagedKv& own,
                            std::span<const SeenBlocks> seen) {
  Workspace& ws = *rank.workspace;
  const int64_t parts = own.num_parts;
  // One part's copies come after the other's: where the next one of each goes, and where they end.
  const std::span<int64_t> next = ws.Take<int64_t>(parts);
  const std::span<int64_t> ends = ws.Take<int64_t>(parts);
  int64_t num_blocks = 0;
  for (int64_t part = 0; part < parts; ++part) {
    next[static_cast<size_t>(part)] = num_blocks;
    const auto below = [&](int64_t end) { return (end + parts - 1 - part) / parts; };
    for (const SeenBlocks& s : seen) num_blocks += below(s.end) - below(s.first);
    ends[static_cast<size_t>(part)] = num_blocks;
  }
  const int64_t block_bytes = BlockBytes(own.keys) + BlockBytes(own.values);
  const std::span<std::byte> copies = ws.Take<std::byte>(num_blocks * block_bytes);
  const PagedKv cache = CacheOf(copies, num_blocks, own);
  const auto tables = ws.Take<std::span<const int32_t>>(std::ssize(seen));
  for (size_t i = 0; i < seen.size(); ++i) {
    const SeenBlocks& s = seen[i];
    const std::span<int32_t> table = ws.Take<int32_t>(s.end);
    for (int64_t block = s.first; block < s.end; ++block) {
      const int64_t copy = next[static_cast<size_t>(block % parts)]++;
      table[static_cast<size_t>(block)] = static_cast<int32_t>(copy);
      if (block % parts != own.part) continue;
      const int64_t from = s.blocks[static_cast<size_t>(block / parts)];
      CopyBlock(own.keys, from, cache.keys, copy);
      CopyBlock(own.values, from, cache.values, copy);
    }
    tables[i] = table;
  }
  rank.context->AllGatherColumns({.data = copies.data(),
                                  .num_rows = 1,
                                  .row_stride_bytes = 0,
                                  .element_bytes = block_bytes,
                                  .ends = ends});
  return {.cache = cache, .tables = tables};
}

}  // namespace wideload::model
