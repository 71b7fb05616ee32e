#include "checkpoint/generation_config.h"

#include <algorithm>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/token_ids.h"

namespace wideload::checkpoint {
namespace {

constexpr int64_t kMaxTokenId = (int64_t{1} << 31) - 1;
constexpr size_t kMaxEosIds = 1024;
constexpr double kLargest = 1e300;

std::optional<double> OptionalNumber(const JsonFields& fields, std::string_view name) {
  if (!fields.Has(name)) return std::nullopt;
  return fields.Number(name, -kLargest, kLargest);
}

}  // namespace

std::vector<int64_t> ReadTokenIds(const JsonFields& fields, std::string_view name) {
  std::vector<int64_t> ids;
  const Json* value = fields.Find(name);
  if (value == nullptr) return ids;
  if (!value->is_array()) return {fields.Int(name, 0, kMaxTokenId)};
  for (const Json& id : *value) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > static_cast<uint64_t>(kMaxTokenId) ||
        value->size() > kMaxEosIds)
      fields.Refuse(name, fmt::format("a token id or an array of at most {} token ids in [0, {}]",
                                      kMaxEosIds, kMaxTokenId));
    const auto number = id.get<int64_t>();
    if (std::find(ids.begin(), ids.end(), number) == ids.end()) ids.push_back(number);
  }
  return ids;
}

GenerationConfig ParseGenerationConfig(std::string_view text, const std::string& source) {
  const Json json = ParseJson(text, source);
  const JsonFields fields(json, source);
  GenerationConfig config;
  config.eos_ids = ReadTokenIds(fields, "eos_token_id");
  if (fields.Has("do_sample")) config.do_sample = fields.BoolOr("do_sample", false);
  config.temperature = OptionalNumber(fields, "temperature");
  if (fields.Has("top_k")) config.top_k = fields.Int("top_k", -kMaxTokenId, kMaxTokenId);
  config.top_p = OptionalNumber(fields, "top_p");
  config.min_p = OptionalNumber(fields, "min_p");
  config.repetition_penalty = OptionalNumber(fields, "repetition_penalty");
  return config;
}

GenerationConfig ReadGenerationConfig(const std::string& folder) {
  const std::string path = folder + "/generation_config.json";
  if (!FileExists(path)) return {};
  return ParseGenerationConfig(ReadFile(path, uint64_t{1} << 20), path);
}

}  // namespace wideload::checkpoint
