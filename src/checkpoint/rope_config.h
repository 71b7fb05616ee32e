// Reads the rotary embedding out of a config.json, in either spelling. Private to this module.
#pragma once

#include "checkpoint/config_reader.h"
#include "checkpoint/model_config.h"

namespace wideload::checkpoint {

// Above any published context; with the other limits of a config it keeps arithmetic in int64.
inline constexpr int64_t kMaxPositions = int64_t{1} << 27;

// `rope_theta` with `rope_scaling` and `partial_rotary_factor`, or `rope_parameters`; when both are
// there they must agree. A type that is not implemented goes to reader.unsupported() and is read as
// kDefault. Errors: kInvalid or kCorrupt naming the field.
RopeConfig ReadRopeConfig(ConfigReader& reader, int64_t max_positions);

}  // namespace wideload::checkpoint
