// The flags that say how tokens are chosen, and what they mean for a given model.
#pragma once

#include <cstdint>
#include <vector>

#include "command_line.h"
#include "config/flags.h"
#include "runtime/request.h"
#include "session.h"

namespace wideload::apps {

using config::SamplingFlags;

// But for --logprobs.
void AddSamplingFlags(Command command, SamplingFlags& flags);

// What the flags say and, where they do not, generation_config.json.
runtime::SamplingParams SamplingOf(const SamplingFlags& flags,
                                   const checkpoint::GenerationConfig& file);
// The same of a session, checked. Errors: kInvalid naming the flag, or the file that the value came
// from.
runtime::SamplingParams ResolveSampling(const SamplingFlags& flags, const Session& session);
// The ids that end generation: generation_config.json's, else config.json's; none with ignore_eos.
std::vector<int32_t> ResolveEos(const SamplingFlags& flags, const Session& session);

}  // namespace wideload::apps
