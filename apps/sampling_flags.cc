#include "sampling_flags.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace wideload::apps {
namespace {

// `wrong` is "top_p is 2; allowed: ...": puts the flag's spelling or the file before it.
[[noreturn]] void RefuseSampling(const std::string& wrong, const SamplingFlags& flags,
                                 const Session& session) {
  std::string field = wrong.substr(0, wrong.find(' '));
  const std::pair<std::string_view, bool> from_file[] = {
      {"temperature", !flags.temperature},
      {"top_k", !flags.top_k},
      {"top_p", !flags.top_p},
      {"min_p", !flags.min_p},
      {"repetition_penalty", !flags.repetition_penalty}};
  for (const auto& [name, is_from_file] : from_file)
    if (field == name && is_from_file)
      Throw(ErrorKind::kInvalid, "{}/generation_config.json: {}", session.folder, wrong);
  std::replace(field.begin(), field.end(), '_', '-');
  Throw(ErrorKind::kInvalid, "--{}{}", field, wrong.substr(field.size()));
}

}  // namespace

void AddSamplingFlags(Command command, SamplingFlags& flags) {
  command.Add("--temperature", flags.temperature,
              "0 is greedy (default: generation_config.json, else 0)");
  command.Add("--top-k", flags.top_k, "keep the k most likely tokens; 0 keeps all");
  command.Add("--top-p", flags.top_p, "keep the smallest set of tokens with this probability");
  command.Add("--min-p", flags.min_p, "drop tokens below this share of the most likely one");
  command.Add("--repetition-penalty", flags.repetition_penalty,
              "divides logits of tokens seen; 1 is off");
  command.Add("--presence-penalty", flags.presence_penalty,
              "subtracted from logits of tokens generated before");
  command.Add("--frequency-penalty", flags.frequency_penalty,
              "subtracted per time a token was generated");
  command.Add("--seed", flags.seed, "of the random numbers").NonNegative().ShowDefault();
  command.Add("-n,--max-tokens", flags.max_tokens, "tokens to generate").NonNegative();
  command.Add("--ignore-eos", flags.ignore_eos,
              "do not stop at the model's end-of-sequence tokens");
}

runtime::SamplingParams ResolveSampling(const SamplingFlags& flags, const Session& session) {
  const checkpoint::GenerationConfig& file = session.generation;
  const bool greedy = file.do_sample.has_value() && !*file.do_sample;
  runtime::SamplingParams params;
  params.temperature =
      flags.temperature.value_or(greedy ? 0 : file.temperature.value_or(file.do_sample ? 1 : 0));
  params.top_k = flags.top_k.value_or(
      static_cast<int32_t>(std::min<int64_t>(file.top_k.value_or(0), 1 << 30)));
  params.top_p = flags.top_p.value_or(file.top_p.value_or(1));
  params.min_p = flags.min_p.value_or(file.min_p.value_or(0));
  params.repetition_penalty =
      flags.repetition_penalty.value_or(file.repetition_penalty.value_or(1));
  params.presence_penalty = flags.presence_penalty.value_or(0);
  params.frequency_penalty = flags.frequency_penalty.value_or(0);
  params.seed = flags.seed;
  params.num_logprobs = flags.logprobs.value_or(-1);
  const std::string wrong = InvalidField(params, session.config.vocab_size);
  if (!wrong.empty()) RefuseSampling(wrong, flags, session);
  if (flags.logprobs && *flags.logprobs < 0)
    RefuseSampling(fmt::format("logprobs is {}; allowed: 0 and above", *flags.logprobs), flags,
                   session);
  return params;
}

std::vector<int32_t> ResolveEos(const SamplingFlags& flags, const Session& session) {
  if (flags.ignore_eos) return {};
  const std::vector<int64_t>& ids =
      session.generation.eos_ids.empty() ? session.config.eos_ids : session.generation.eos_ids;
  std::vector<int32_t> eos;
  for (const int64_t id : ids) eos.push_back(static_cast<int32_t>(id));
  return eos;
}

}  // namespace wideload::apps
