// The model families this program can run, and how a folder is read as one of them. To add a
// family, see docs/howto/add-a-model.md. Thread-safe: no state.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/model_config.h"
#include "model/spec.h"

namespace wideload::model {

struct Family;
// All of them.
std::span<const Family> Families();

// What a config.json says, read as its family does.
struct ModelReading {
  checkpoint::ModelConfig config;
  ModelSpec spec;           // complete only when nothing is unsupported
  std::string_view family;  // for people; empty when its architecture is not known
  std::vector<std::string>
      unsupported;  // why it cannot be run: one sentence each, naming the field
};

// Reads a config.json given as text; `source` is its path for messages. `faults`: what is missing
// or impossible, one sentence each, naming file, field, found and allowed; then the reading is
// complete but for its config and spec. Errors: kCorrupt when the text is no JSON object.
ModelReading ParseModel(std::string_view text, const std::string& source,
                        std::vector<std::string>& faults);
// The same. Errors: also kCorrupt or kInvalid with all faults.
ModelReading ParseModel(std::string_view text, const std::string& source);

// ParseModel of folder/config.json. Errors: as there; kNotFound when folder or file is missing.
ModelReading InspectModel(const std::string& folder);

// A model that is to be run. Errors: as InspectModel; kUnsupported with every reason.
ModelReading ReadModel(const std::string& folder);

}  // namespace wideload::model
