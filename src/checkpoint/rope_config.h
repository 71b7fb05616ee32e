// Reads the rotary embedding out of a config.json, in either spelling. Private to this module.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/model_config.h"

namespace wideload::checkpoint {

// `rope_theta` with `rope_scaling`, or `rope_parameters`; when both are there they must agree. A
// type that is not implemented is added to `unsupported` and read as kDefault. Errors: kInvalid or
// kCorrupt naming the field.
RopeConfig ReadRopeConfig(const JsonFields& fields, int64_t max_positions,
                          std::vector<std::string>& unsupported);

}  // namespace wideload::checkpoint
