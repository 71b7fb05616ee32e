// What the engine does not compute on GPUs yet, refused by name.
#pragma once

#include "checkpoint/model_config.h"
#include "config/flags.h"
#include "model/spec.h"
#include "runtime/engine_options.h"

namespace wideload::runtime {

// Errors: kUnsupported naming the option or the model, what it is, and what is allowed with
// --device cuda.
void RefuseOnDevice(const config::EngineFlags& flags, const checkpoint::ModelConfig& config,
                    const model::ModelSpec& spec, const EngineOptions& options);

}  // namespace wideload::runtime
