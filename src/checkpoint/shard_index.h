// model.safetensors.index.json: which shard of a checkpoint holds which tensor. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace wideload::checkpoint {

struct ShardIndex {
  std::map<std::string, std::string> shard_of;  // tensor name -> file name within the folder
  std::optional<uint64_t> total_bytes;          // of all tensors' data, when the file says so

  std::vector<std::string> Shards() const;  // each file once, sorted
};

// Reads the index given as text; `source` is its path for messages. Errors: kCorrupt or kInvalid
// naming tensor and shard when a shard is no plain *.safetensors file name (so that it cannot lead
// out of the folder), when there are no tensors or a field has the wrong type; kUnsupported when it
// names pickle files.
ShardIndex ParseShardIndex(std::string_view text, const std::string& source);

}  // namespace wideload::checkpoint
