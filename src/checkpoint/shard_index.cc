#include "checkpoint/shard_index.h"

#include <set>

#include "base/json.h"

namespace wideload::checkpoint {
namespace {

bool IsPlainFileName(std::string_view name) {
  constexpr std::string_view kSeparators("/\\\0", 3);
  return name.find_first_of(kSeparators) == std::string_view::npos && !name.starts_with('.');
}

void CheckShardName(const JsonFields& weight_map, const std::string& tensor,
                    const std::string& shard) {
  if (shard.ends_with(".bin") || shard.ends_with(".pt") || shard.ends_with(".pth"))
    Throw(ErrorKind::kUnsupported,
          "{} is \"{}\", a pickle file, which may carry code; give a checkpoint converted to "
          "safetensors",
          weight_map.Where(tensor), shard);
  if (!IsPlainFileName(shard) || !shard.ends_with(".safetensors"))
    weight_map.Refuse(tensor, "the name of a .safetensors file in the same folder");
}

}  // namespace

std::vector<std::string> ShardIndex::Shards() const {
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : shard_of) shards.insert(shard);
  return {shards.begin(), shards.end()};
}

ShardIndex ParseShardIndex(std::string_view text, const std::string& source) {
  const Json json = ParseJson(text, source);
  const JsonFields document(json, source);
  ShardIndex index;
  if (document.Has("metadata")) {
    const JsonFields metadata = document.Object("metadata");
    const Json* total = metadata.Find("total_size");
    // Some writers store it as a float.
    if (total != nullptr)
      index.total_bytes = static_cast<uint64_t>(metadata.Number("total_size", 0, 0x1p62));
  }
  const JsonFields weight_map = document.Object("weight_map");
  for (const auto& item : weight_map.json().items()) {
    std::string shard = weight_map.String(item.key());
    CheckShardName(weight_map, item.key(), shard);
    index.shard_of.emplace(item.key(), std::move(shard));
  }
  if (index.shard_of.empty()) document.Refuse("weight_map", "an object with at least one tensor");
  return index;
}

}  // namespace wideload::checkpoint
