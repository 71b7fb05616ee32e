// vLLM's JSONL files: load statistics (records eplb_load_meta and eplb_load_stats) and static
// mappings (record eplb_initial_mapping). Pure; thread-safe. Source: vLLM's tools/eplb and
// vllm/distributed/eplb.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "formats/recording.h"
#include "statistics/eplb_yaml.h"

namespace wideload::formats {

struct VllmFile {
  std::optional<Recording> recording = {};
  std::optional<statistics::EplbConfig> mapping = {};
};

// Every line is one record; empty lines and records of other types are skipped, the latter noted.
// Each eplb_load_stats is a batch of counts per slot.
// Errors: kCorrupt and kInvalid with `source` and line: no JSON, another version than 1, arrays
// that do not fit each other, a mapping whose lists do not have num_slots entries; neither of the
// two.
VllmFile ParseVllmJsonl(std::string_view text, const std::string& source);

// eplb_load_meta and one eplb_load_stats per batch, each expert in one slot.
std::string FormatVllmStatistics(const statistics::LoadTable& table, int32_t ep_size);

}  // namespace wideload::formats
