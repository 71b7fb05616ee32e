// The flags that say how tokens are chosen, and what they mean for a given model.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "command_line.h"
#include "runtime/request.h"
#include "session.h"

namespace wideload::apps {

// Sampling options; what is not given comes from generation_config.json, then from the defaults.
struct SamplingFlags {
  std::optional<double> temperature, top_p, min_p, repetition_penalty, presence_penalty,
      frequency_penalty;
  std::optional<int32_t> top_k, logprobs;
  uint64_t seed = 0;
  std::optional<int64_t> max_tokens;
  bool ignore_eos = false;
};
void AddSamplingFlags(Command command, SamplingFlags& flags);

// Errors: kInvalid naming the flag, or the file that the value came from.
runtime::SamplingParams ResolveSampling(const SamplingFlags& flags, const Session& session);
// The ids that end generation: generation_config.json's, else config.json's; none with ignore_eos.
std::vector<int32_t> ResolveEos(const SamplingFlags& flags, const Session& session);

}  // namespace wideload::apps
