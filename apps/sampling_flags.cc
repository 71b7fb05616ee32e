#include "sampling_flags.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "chat/chat_template.h"
#include "option_flags.h"
#include "runtime/sampling_choice.h"

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
  AddOptions(command, config::Group::kSampling, flags);
}

runtime::SamplingParams ResolveSampling(const SamplingFlags& flags, const Session& session) {
  const runtime::SamplingParams params = runtime::ChooseSampling(flags, session.generation);
  const std::string wrong = InvalidField(params, session.config.vocab_size);
  if (!wrong.empty()) RefuseSampling(wrong, flags, session);
  if (flags.logprobs && *flags.logprobs < 0)
    RefuseSampling(fmt::format("logprobs is {}; allowed: 0 and above", *flags.logprobs), flags,
                   session);
  return params;
}

std::vector<int32_t> ResolveEos(const SamplingFlags& flags, const Session& session,
                                const tokenizer::Tokenizer& tokenizer) {
  if (flags.ignore_eos) return {};
  std::vector<int32_t> eos;
  const auto add = [&](int64_t id) {
    const auto number = static_cast<int32_t>(id);
    if (std::ranges::find(eos, number) == eos.end()) eos.push_back(number);
  };
  for (const int64_t id : session.generation.eos_ids) add(id);
  for (const int64_t id : session.config.eos_ids) add(id);
  const std::string text = chat::EosToken(session.folder);
  if (const std::optional<int32_t> id = tokenizer.TokenId(text); id && !text.empty()) add(*id);
  return eos;
}

}  // namespace wideload::apps
