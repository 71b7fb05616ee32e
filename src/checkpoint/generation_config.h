// generation_config.json: the default sampling settings a model's publisher gives. A plain value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace wideload::checkpoint {

// Absent fields were not in the file.
struct GenerationConfig {
  std::vector<int64_t> eos_ids;  // overrides the model config's when not empty
  std::optional<bool> do_sample;
  std::optional<double> temperature;         // >= 0
  std::optional<int64_t> top_k;              // 0: off
  std::optional<double> top_p;               // (0, 1]
  std::optional<double> min_p;               // [0, 1]
  std::optional<double> repetition_penalty;  // > 0; 1: off
  bool operator==(const GenerationConfig&) const = default;
};

// Errors: kCorrupt or kInvalid naming `source`, field, found and allowed.
GenerationConfig ParseGenerationConfig(std::string_view text, const std::string& source);

// Of folder/generation_config.json; all fields absent when there is no such file.
GenerationConfig ReadGenerationConfig(const std::string& folder);

}  // namespace wideload::checkpoint
