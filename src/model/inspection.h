// What a Hugging Face folder holds and whether it can be run: everything that can be read of it,
// and every reason against it at once. Plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/weight_sums.h"
#include "model/registry.h"

namespace wideload::model {

struct Inspection {
  std::string architecture;                       // "" when config.json does not say
  std::string family;                             // for people; "" when it is not implemented
  std::optional<checkpoint::ModelConfig> config;  // absent when a field is missing or impossible
  std::optional<checkpoint::WeightSums> weights;  // absent when the files cannot be read
  std::vector<int64_t> eos_ids;                // of generation_config.json and config.json together
  std::optional<uint64_t> kv_bytes_per_token;  // in all layers, bf16; of a model that can be run
  std::vector<std::string> reasons;  // why it cannot be run; empty: every tensor it needs was found
};

// Errors: kNotFound when there is no such folder, kInvalid when it is a file; all else is a reason.
Inspection InspectFolder(const std::string& folder);

}  // namespace wideload::model
