#include "checkpoint/shard_index.h"

#include <set>

#include "base/json.h"

namespace wideload::checkpoint {
namespace {

bool IsPlainFileName(std::string_view name) {
  constexpr std::string_view kSeparators("/\\\0", 3);
  return name.find_first_of(kSeparators) == std::string_view::npos && !name.starts_with('.');
}

// The shard of a tensor, from its member of the object weight_map.
std::string ReadShard(const std::string& tensor, const Json& value, const std::string& source) {
  const Json member = Json::object({{tensor, value}});
  const JsonFields weight_map(member, source, "weight_map");
  std::string shard = weight_map.String(tensor);
  if (shard.ends_with(".bin") || shard.ends_with(".pt") || shard.ends_with(".pth"))
    Throw(ErrorKind::kUnsupported,
          "{} is \"{}\", a pickle file, which may carry code; give a checkpoint converted to "
          "safetensors",
          weight_map.Where(tensor), shard);
  if (!IsPlainFileName(shard) || !shard.ends_with(".safetensors"))
    weight_map.Refuse(tensor, "the name of a .safetensors file in the same folder");
  return shard;
}

}  // namespace

std::vector<std::string> ShardIndex::Shards() const {
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : shard_of) shards.insert(shard);
  return {shards.begin(), shards.end()};
}

ShardIndex ParseShardIndex(std::string_view text, const std::string& source) {
  ShardIndex index;
  const Json json = ParseJsonMembers(
      text, source, "weight_map", [&](const std::string& tensor, const Json& value) {
        return index.shard_of.try_emplace(tensor, ReadShard(tensor, value, source)).second;
      });
  const JsonFields document(json, source);
  if (document.Has("metadata")) {
    const JsonFields metadata = document.Object("metadata");
    const Json* total = metadata.Find("total_size");
    // Some writers store it as a float, others as text, which says nothing that is needed.
    if (total != nullptr && !total->is_string())
      index.total_bytes = static_cast<uint64_t>(metadata.Number("total_size", 0, 0x1p62));
  }
  document.Object("weight_map");
  if (index.shard_of.empty()) document.Refuse("weight_map", "an object with at least one tensor");
  return index;
}

}  // namespace wideload::checkpoint
