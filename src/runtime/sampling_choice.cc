#include "runtime/sampling_choice.h"

#include <algorithm>

namespace wideload::runtime {

SamplingParams ChooseSampling(const config::SamplingFlags& choice,
                              const checkpoint::GenerationConfig& file) {
  const bool greedy = file.do_sample.has_value() && !*file.do_sample;
  SamplingParams params;
  params.temperature =
      choice.temperature.value_or(greedy ? 0 : file.temperature.value_or(file.do_sample ? 1 : 0));
  // Greedy choice looks at none of these.
  const bool is_void = greedy && !choice.temperature;
  const checkpoint::GenerationConfig limits = is_void ? checkpoint::GenerationConfig{} : file;
  params.top_k = choice.top_k.value_or(
      static_cast<int32_t>(std::min<int64_t>(limits.top_k.value_or(0), 1 << 30)));
  params.top_p = choice.top_p.value_or(limits.top_p.value_or(1));
  params.min_p = choice.min_p.value_or(limits.min_p.value_or(0));
  params.repetition_penalty =
      choice.repetition_penalty.value_or(file.repetition_penalty.value_or(1));
  params.presence_penalty = choice.presence_penalty.value_or(0);
  params.frequency_penalty = choice.frequency_penalty.value_or(0);
  params.seed = choice.seed;
  params.num_logprobs = choice.logprobs.value_or(-1);
  return params;
}

}  // namespace wideload::runtime
