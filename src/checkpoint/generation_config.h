// generation_config.json: the default sampling settings a model's publisher gives. A plain value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace wideload::checkpoint {

// Absent fields were not in the file. Numbers may be out of range: a flag may stand in their place,
// or do_sample make them void.
struct GenerationConfig {
  std::vector<int64_t> eos_ids;
  std::optional<bool> do_sample;
  std::optional<double> temperature;
  std::optional<int64_t> top_k;
  std::optional<double> top_p;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
  bool operator==(const GenerationConfig&) const = default;
};

// Errors: kCorrupt or kInvalid naming `source`, and for each wrong field what was found and what is
// allowed.
GenerationConfig ParseGenerationConfig(std::string_view text, const std::string& source);

// Of folder/generation_config.json; all fields absent when there is no such file.
GenerationConfig ReadGenerationConfig(const std::string& folder);

}  // namespace wideload::checkpoint
