// The keys of a config.json that change what a model computes and that a ModelConfig cannot
// express. Private to this module.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"

namespace wideload::checkpoint {

// Appends one sentence per such key that is switched on. `top` is the whole document, `fields` the
// part that describes the language model (the same, or its text_config).
void CollectUnsupported(const JsonFields& top, const JsonFields& fields, int64_t num_layers,
                        std::vector<std::string>& unsupported);

}  // namespace wideload::checkpoint
