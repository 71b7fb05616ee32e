#include "runtime/servers/block_request.h"

#include "base/error.h"
#include "runtime/processes/wire.h"

namespace wideload::runtime {

void WriteBlockRequest(const BlockRequest& request, std::vector<std::byte>& bytes) {
  ByteWriter writer(bytes);
  writer.Put(request.reader);
  writer.Put(static_cast<uint64_t>(request.blocks.size()));
  for (const auto& blocks : request.blocks) writer.PutAll(std::span<const int32_t>(blocks));
}

BlockRequest ReadBlockRequest(std::span<const std::byte> bytes,
                              std::span<const int64_t> num_blocks) {
  ByteReader reader(bytes);
  BlockRequest request{.reader = reader.Take<model::TensorRank>(), .blocks = {}};
  if (request.reader.rank < 0 || request.reader.rank >= request.reader.size)
    Throw(ErrorKind::kCorrupt, "rank {} of {} reads blocks", request.reader.rank,
          request.reader.size);
  if (const auto count = reader.Take<uint64_t>(); count != num_blocks.size())
    Throw(ErrorKind::kCorrupt, "blocks of {} classes are asked for; there are {}", count,
          num_blocks.size());
  for (const int64_t limit : num_blocks) {
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
