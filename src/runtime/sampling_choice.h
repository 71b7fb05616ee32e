// What somebody says of sampling together with what the model's publisher says. Pure.
#pragma once

#include "checkpoint/generation_config.h"
#include "config/flags.h"
#include "runtime/request.h"

namespace wideload::runtime {

// What `choice` says and, where it does not, generation_config.json. Not checked: InvalidField.
SamplingParams ChooseSampling(const config::SamplingFlags& choice,
                              const checkpoint::GenerationConfig& file);

}  // namespace wideload::runtime
