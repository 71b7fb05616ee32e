// The flags that say how tokens are chosen, and what they mean for a given model.
#pragma once

#include <cstdint>
#include <vector>

#include "command_line.h"
#include "config/flags.h"
#include "runtime/request.h"
#include "session.h"
#include "tokenizer/tokenizer.h"

namespace wideload::apps {

using config::SamplingFlags;

// But for --logprobs.
void AddSamplingFlags(Command command, SamplingFlags& flags);

// runtime::ChooseSampling of a session, checked. Errors: kInvalid naming the flag, or the file that
// the value came from.
runtime::SamplingParams ResolveSampling(const SamplingFlags& flags, const Session& session);
// The ids that end generation: those of generation_config.json, config.json and the eos_token of
// tokenizer_config.json together; none with ignore_eos. Errors: what is wrong with the last file.
std::vector<int32_t> ResolveEos(const SamplingFlags& flags, const Session& session,
                                const tokenizer::Tokenizer& tokenizer);

}  // namespace wideload::apps
