#include "runtime/servers/block_request.h"

#include "base/error.h"
#include "runtime/processes/wire.h"

namespace wideload::runtime {

void WriteBlockRequest(const BlockRequest& request, std::vector<std::byte>& bytes) {
  ByteWriter writer(bytes);
  writer.Put(request.reader);
  writer.Put(request.micro_batch);
  writer.Put(static_cast<uint64_t>(request.blocks.size()));
  for (const auto& blocks : request.blocks) writer.PutAll(std::span<const int32_t>(blocks));
}

BlockRequest ReadBlockRequest(std::span<const std::byte> bytes, const BlockLimits& limits) {
  ByteReader reader(bytes);
  BlockRequest request{
      .reader = reader.Take<CachePart>(), .micro_batch = reader.Take<int32_t>(), .blocks = {}};
  const CachePart& part = request.reader;
  if (part.heads.rank < 0 || part.heads.rank >= part.heads.size)
    Throw(ErrorKind::kCorrupt, "rank {} of {} reads blocks", part.heads.rank, part.heads.size);
  if (part.layers.begin < 0 || part.layers.begin > part.layers.end ||
      part.layers.end > limits.num_layers)
    Throw(ErrorKind::kCorrupt, "layers {} to {} are asked for; there are {}", part.layers.begin,
          part.layers.end, limits.num_layers);
  if (request.micro_batch < 0 || request.micro_batch >= limits.num_micro_batches)
    Throw(ErrorKind::kCorrupt, "micro-batch {} is asked for; there are {}", request.micro_batch,
          limits.num_micro_batches);
  if (const auto count = reader.Take<uint64_t>(); count != limits.num_blocks.size())
    Throw(ErrorKind::kCorrupt, "blocks of {} classes are asked for; there are {}", count,
          limits.num_blocks.size());
  for (const int64_t limit : limits.num_blocks) {
    const std::span<const int32_t> blocks = reader.TakeAll<int32_t>();
    if (std::ssize(blocks) > limit)
      Throw(ErrorKind::kCorrupt, "{} blocks are asked for; there are {}", blocks.size(), limit);
    for (const int32_t block : blocks)
      if (block < 0 || block >= limit)
        Throw(ErrorKind::kCorrupt, "block {} is asked for; there are {}", block, limit);
    request.blocks.emplace_back(blocks.begin(), blocks.end());
  }
  if (!reader.is_at_end())
    Throw(ErrorKind::kCorrupt, "a request for blocks is longer than what it says");
  return request;
}

}  // namespace wideload::runtime
