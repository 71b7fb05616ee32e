// Any bytes as model.safetensors.index.json: read or refused, and no shard leads out of the folder.
#include <cstdint>

#include "base/error.h"
#include "checkpoint/shard_index.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload;
  try {
    const checkpoint::ShardIndex index = checkpoint::ParseShardIndex(
        std::string_view(reinterpret_cast<const char*>(data), size), "index.json");
    for (const std::string& shard : index.Shards())
      WIDELOAD_CHECK(shard.find('/') == std::string::npos && shard != "..", "shard {}", shard);
  } catch (const Error&) {
    // a refusal is an answer
  }
  return 0;
}
