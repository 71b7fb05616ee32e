#include "checkpoint/generation_config.h"

#include <algorithm>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/config_reader.h"
#include "checkpoint/token_ids.h"

namespace wideload::checkpoint {
namespace {

constexpr size_t kMaxEosIds = 1024;
constexpr double kLargest = 1e300;

std::optional<double> OptionalNumber(ConfigReader& reader, std::string_view name) {
  if (!reader.Has(name)) return std::nullopt;
  return reader.Number(name, -kLargest, kLargest);
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
  ConfigReader reader(text, source);
  GenerationConfig config;
  reader.Part([&] { config.eos_ids = ReadTokenIds(reader.fields(), "eos_token_id"); });
  if (reader.Has("do_sample")) config.do_sample = reader.BoolOr("do_sample", false);
  config.temperature = OptionalNumber(reader, "temperature");
  if (reader.Has("top_k")) config.top_k = reader.Int("top_k", -kMaxTokenId, kMaxTokenId);
  config.top_p = OptionalNumber(reader, "top_p");
  config.min_p = OptionalNumber(reader, "min_p");
  config.repetition_penalty = OptionalNumber(reader, "repetition_penalty");
  reader.ThrowFaults();
  return config;
}

GenerationConfig ReadGenerationConfig(const std::string& folder) {
  const std::string path = folder + "/generation_config.json";
  if (!FileExists(path)) return {};
  return ParseGenerationConfig(ReadFile(path, uint64_t{1} << 20), path);
}

}  // namespace wideload::checkpoint
