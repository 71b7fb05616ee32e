// The fields of all requests, one row each.
#include <algorithm>
#include <limits>

#include "base/error.h"
#include "serve/api_request.h"

namespace wideload::serve {
namespace {

constexpr unsigned kGenerate = kCompletion | kChat;
constexpr unsigned kSampled = kGenerate | kResponses;
constexpr unsigned kTemplated = kChat | kTokenize | kApplyTemplate;
constexpr double kMaxTokens = 1e9;
constexpr int32_t kMaxChoices = 128;
constexpr size_t kMaxBiases = 1024;
constexpr size_t kMaxStopIds = 1024;
constexpr size_t kMaxSaltBytes = 256;

using Request = ApiRequest;
using Wrong = std::string;

template <auto kMember>
Wrong Set(const Json& value, Request& request) {
  value.get_to(request.*kMember);
  return "";
}

template <auto kMember>
Wrong SetOptional(const Json& value, Request& request) {
  using T = typename std::remove_reference_t<decltype(request.*kMember)>::value_type;
  request.*kMember = value.get<T>();
  return "";
}

template <auto kMember>
Wrong SetSampling(const Json& value, Request& request) {
  using T = typename std::remove_reference_t<decltype(request.sampling.*kMember)>::value_type;
  request.sampling.*kMember = value.get<T>();
  return "";
}

// Fields that say what happens anyway.
template <bool kOnly>
Wrong OnlyBool(const Json& value, Request&) {
  return value.get<bool>() == kOnly ? ""
                                    : fmt::format("is {}; only {} is supported", !kOnly, kOnly);
}
Wrong OnlyOne(const Json& value, Request&) {
  return value == 1 ? "" : "is not 1; only 1 is supported";
}
Wrong Ignore(const Json&, Request&) { return ""; }
Wrong Unsupported(const Json&, Request&) { return "is not supported"; }

std::string WrongId(const Json& id) {
  const bool is_id = id.is_number_integer() && id >= 0 && id <= std::numeric_limits<int32_t>::max();
  return is_id ? "" : fmt::format("has {}, which is no token id", BeginOf(DumpJson(id), 64));
}

Wrong TakeIds(const Json& value, std::vector<int32_t>& ids) {
  ids.reserve(value.size());
  for (const Json& id : value) {
    if (std::string wrong = WrongId(id); !wrong.empty()) return wrong;
    ids.push_back(id.get<int32_t>());
  }
  return "";
}

Wrong TakePrompt(const Json& value, Request& request) {
  constexpr const char* kAllowed =
      "must be a text, a list of texts, of token ids, or of lists of token ids";
  if (value.is_string()) {
    request.prompts.push_back({.text = value.get<std::string>(), .ids = {}});
    return "";
  }
  if (value.empty()) return "is an empty list; at least one prompt is needed";
  const auto add_ids = [&](const Json& ids) {
    request.prompts.push_back({.text = "", .ids = {}, .is_ids = true});
    return TakeIds(ids, request.prompts.back().ids);
  };
  if (value.front().is_number()) return add_ids(value);
  for (const Json& item : value) {
    if (item.is_string())
      request.prompts.push_back({.text = item.get<std::string>(), .ids = {}});
    else if (!item.is_array())
      return kAllowed;
    else if (Wrong wrong = add_ids(item); !wrong.empty())
      return wrong;
  }
  return "";
}

Wrong TakeText(const Json& value, Request& request) { return TakePrompt(value, request); }

Wrong TakeStop(const Json& value, Request& request) {
  if (value.is_string())
    request.stop = {value.get<std::string>()};
  else
    value.get_to(request.stop);
  return "";
}

Wrong TakeStopIds(const Json& value, Request& request) {
  if (value.size() > kMaxStopIds)
    return fmt::format("has {} ids; at most {} are allowed", value.size(), kMaxStopIds);
  return TakeIds(value, request.stop_ids);
}

Wrong TakeTokens(const Json& value, Request& request) { return TakeIds(value, request.ids); }

Wrong TakeSeed(const Json& value, Request& request) {
  request.seed = value.is_number_unsigned() ? value.get<uint64_t>()
                                            : static_cast<uint64_t>(value.get<int64_t>());
  return "";
}

Wrong TakeTopK(const Json& value, Request& request) {
  request.sampling.top_k = std::max(0, value.get<int32_t>());  // -1 is all, too
  return "";
}

Wrong TakeBias(const Json& value, Request& request) {
  if (value.size() > kMaxBiases)
    return fmt::format("has {} members; at most {} are allowed", value.size(), kMaxBiases);
  for (const auto& [key, bias] : value.items()) {
    const bool is_id =
        !key.empty() && key.size() <= 9 && key.find_first_not_of("0123456789") == std::string::npos;
    if (!is_id) return fmt::format("has the key \"{}\", which is no token id", BeginOf(key, 64));
    if (!bias.is_number() || bias < -100 || bias > 100)
      return fmt::format("of {} is {}; allowed: -100 to 100", key, BeginOf(DumpJson(bias), 64));
    request.logit_bias.push_back({.id = std::stoi(key), .bias = bias.get<float>()});
  }
  return "";
}

// A number for completions, a boolean for chats.
Wrong TakeLogprobs(const Json& value, Request& request) {
  if (value.is_boolean()) {
    request.wants_logprobs = value.get<bool>();
    return "";
  }
  if (!value.is_number_integer() || value < 0 || value > 20)
    return fmt::format("is {}; allowed: 0 to 20", BeginOf(DumpJson(value), 64));
  request.num_logprobs = value.get<int32_t>();
  return "";
}

Wrong TakeStreamOptions(const Json& value, Request& request) {
  for (const auto& [key, member] : value.items()) {
    bool* const target = key == "include_usage"            ? &request.include_usage
                         : key == "continuous_usage_stats" ? &request.continuous_usage
                                                           : nullptr;
    if (key == "include_obfuscation" && member == false) continue;
    if (target == nullptr)
      return fmt::format("has the member \"{}\", which is not supported", BeginOf(key, 64));
    if (!member.is_boolean()) return fmt::format("has {} that is no boolean", key);
    *target = member.get<bool>();
  }
  return "";
}

template <std::string (*kRead)(const Json& value, TextForm& form)>
Wrong TakeForm(const Json& value, Request& request) {
  return kRead(value, request.form);
}

Wrong TakeCacheSalt(const Json& value, Request& request) {
  value.get_to(request.cache_salt);
  if (request.cache_salt.empty()) return "is empty; leave it out to share prefixes with all";
  return request.cache_salt.size() <= kMaxSaltBytes
             ? ""
             : fmt::format("has {} bytes; at most {} are allowed", request.cache_salt.size(),
                           kMaxSaltBytes);
}

Wrong TakeToolChoice(const Json& value, Request& request) {
  return ReadToolChoice(value, request.tool_choice);
}

Wrong TakeEffort(const Json& value, Request& request) {
  for (const char* const allowed : {"none", "minimal", "low", "medium", "high", "xhigh"})
    if (value == allowed) request.reasoning_effort = allowed;
  return request.reasoning_effort.empty()
             ? "is none of none, minimal, low, medium, high and xhigh, which are supported"
             : "";
}

Wrong TakeReasoning(const Json& value, Request& request) {
  for (const auto& [key, member] : value.items()) {
    if (member.is_null()) continue;
    if (key != "effort")
      return fmt::format("has the member \"{}\", which is not supported; effort is",
                         BeginOf(key, 64));
    if (const Wrong wrong = TakeEffort(member, request); !wrong.empty())
      return "has an effort that " + wrong;
    request.effort_field = "reasoning";
  }
  return "";
}

Wrong TakeTruncation(const Json& value, Request&) {
  return value == "disabled" ? "" : "is not \"disabled\"; others are not supported";
}

Wrong TakeInclude(const Json& value, Request&) {
  return value.empty() ? "" : "is not empty; nothing of it is supported";
}

constexpr FieldRow kRows[] = {
    {"input", kResponses, FieldType::kAny, 0, 0, "a text, or a list of items of a conversation",
     [](const Json& value, Request&) -> Wrong {
       return value.is_string() || value.is_array() ? "" : "is neither a text nor a list of items";
     }},
    {"instructions", kResponses, FieldType::kText, 0, 0, "the system message", Ignore},
    {"max_output_tokens", kResponses, FieldType::kInteger, 0, kMaxTokens,
     "tokens to generate; what the context holds", SetOptional<&Request::max_completion_tokens>},
    {"text", kResponses, FieldType::kObject, 0, 0, "format: text, json_object or json_schema",
     TakeForm<ReadTextFormat>},
    {"metadata", kResponses, FieldType::kObject, 0, 0, "given back", Ignore},
    {"metadata", kChat, FieldType::kObject, 0, 0, "not supported: nothing is stored",
     [](const Json&, Request&) -> Wrong {
       return "is of chats that are stored (store: true), which is not supported";
     }},
    {"truncation", kResponses, FieldType::kText, 0, 0, "only disabled", TakeTruncation},
    {"include", kResponses, FieldType::kTexts, 0, 0, "only none", TakeInclude},
    {"background", kResponses, FieldType::kBool, 0, 0, "only false", OnlyBool<false>},
    {"previous_response_id", kResponses, FieldType::kText, 0, 0, "not supported: nothing is stored",
     Unsupported},
    {"reasoning", kResponses, FieldType::kObject, 0, 0, "effort, as reasoning_effort of chats",
     TakeReasoning},
    {"model", kSampled | kTokenize | kDetokenize | kApplyTemplate, FieldType::kText, 0, 0,
     "the served model's name", Set<&Request::model>},
    {"prompt", kCompletion, FieldType::kPrompt, 0, 0, "what to continue", TakePrompt},
    {"prompt", kTokenize, FieldType::kText, 0, 0, "text to make token ids of", TakeText},
    {"messages", kTemplated, FieldType::kObjects, 0, 0, "the conversation", Ignore},
    {"tools", kTemplated | kResponses, FieldType::kObjects, 0, 0,
     "functions that the model may call, for its template", Ignore},
    {"tool_choice", kChat | kResponses, FieldType::kAny, 0, 0,
     "none: the model is not shown the tools; auto; required or a function: it has to call one",
     TakeToolChoice},
    {"chat_template_kwargs", kTemplated | kResponses, FieldType::kObject, 0, 0,
     "further variables of the model's template", Ignore},
    {"add_generation_prompt", kTemplated, FieldType::kBool, 0, 0,
     "end the prompt with the opening of the assistant's turn; not beside continue_final_message",
     SetOptional<&Request::add_generation_prompt>},
    {"continue_final_message", kTemplated, FieldType::kBool, 0, 0,
     "the last message is the begin of the answer, which goes on with it",
     Set<&Request::continue_final_message>},
    {"reasoning_effort", kTemplated, FieldType::kText, 0, 0,
     "for models whose template has it: none, minimal, low, medium, high, xhigh", TakeEffort},
    {"max_tokens", kGenerate, FieldType::kInteger, 0, kMaxTokens,
     "tokens to generate; completions: 16, chats: what the context holds",
     [](const Json& value, Request& request) -> Wrong {
       request.sampling.max_tokens = value.get<int64_t>();
       return "";
     }},
    {"max_completion_tokens", kChat, FieldType::kInteger, 0, kMaxTokens,
     "the same under its new name", SetOptional<&Request::max_completion_tokens>},
    {"min_tokens", kSampled, FieldType::kInteger, 0, kMaxTokens,
     "no end token is chosen before so many tokens", Set<&Request::min_tokens>},
    {"temperature", kSampled, FieldType::kNumber, 0, 1e6, "0: the likeliest token",
     SetSampling<&config::SamplingFlags::temperature>},
    {"top_p", kSampled, FieldType::kNumber, 0, 1, "share of the likeliest tokens to choose from",
     SetSampling<&config::SamplingFlags::top_p>},
    {"top_k", kSampled, FieldType::kInteger, -1, 1 << 30, "number of them; 0 or -1: all", TakeTopK},
    {"min_p", kSampled, FieldType::kNumber, 0, 1, "least probability, as a share of the largest",
     SetSampling<&config::SamplingFlags::min_p>},
    {"repetition_penalty", kSampled, FieldType::kNumber, 0, 1e6,
     "divides logits of tokens that were there",
     SetSampling<&config::SamplingFlags::repetition_penalty>},
    {"presence_penalty", kSampled, FieldType::kNumber, -2, 2,
     "subtracted once from logits of generated tokens",
     SetSampling<&config::SamplingFlags::presence_penalty>},
    {"frequency_penalty", kSampled, FieldType::kNumber, -2, 2,
     "subtracted for each time a token was generated",
     SetSampling<&config::SamplingFlags::frequency_penalty>},
    {"seed", kSampled, FieldType::kInteger, -9223372036854775808.0, 18446744073709551615.0,
     "the same seed, the same tokens; else they differ from call to call", TakeSeed},
    {"n", kGenerate, FieldType::kInteger, 1, kMaxChoices, "choices per prompt",
     Set<&Request::num_choices>},
    {"best_of", kCompletion, FieldType::kInteger, 1, 1, "only 1", OnlyOne},
    {"logit_bias", kSampled, FieldType::kObject, 0, 0, "token id: what is added to its logit",
     TakeBias},
    {"logprobs", kCompletion, FieldType::kInteger, 0, 20,
     "log probabilities of the tokens and so many likeliest", TakeLogprobs},
    {"logprobs", kChat, FieldType::kBool, 0, 0, "log probabilities of the tokens", TakeLogprobs},
    {"top_logprobs", kChat, FieldType::kInteger, 0, 20, "and of so many likeliest",
     Set<&Request::num_logprobs>},
    {"prompt_logprobs", kGenerate, FieldType::kInteger, 0, 20,
     "log probabilities of the prompt's tokens and so many likeliest",
     Set<&Request::prompt_logprobs>},
    {"echo", kCompletion, FieldType::kBool, 0, 0, "the prompt comes before what is generated",
     Set<&Request::echo>},
    {"stop", kGenerate, FieldType::kTexts, 0, 0, "texts before which generation ends", TakeStop},
    {"stop_token_ids", kSampled, FieldType::kIds, 0, 0, "tokens at which generation ends",
     TakeStopIds},
    {"ignore_eos", kSampled, FieldType::kBool, 0, 0, "the model's end tokens end nothing",
     [](const Json& value, Request& request) -> Wrong {
       request.sampling.ignore_eos = value.get<bool>();
       return "";
     }},
    {"skip_special_tokens", kGenerate, FieldType::kBool, 0, 0, "special tokens are no text",
     Set<&Request::skip_special>},
    {"add_special_tokens", kGenerate | kTokenize, FieldType::kBool, 0, 0,
     "begin a text with the tokenizer's prefix", SetOptional<&Request::add_special_tokens>},
    {"return_token_ids", kGenerate, FieldType::kBool, 0, 0, "token ids beside texts",
     Set<&Request::return_token_ids>},
    {"return_token_strs", kTokenize, FieldType::kBool, 0, 0, "the tokens' texts, too",
     Set<&Request::return_token_strings>},
    {"tokens", kDetokenize, FieldType::kIds, 0, 0, "ids to make text of", TakeTokens},
    {"stream", kSampled, FieldType::kBool, 0, 0, "server-sent events as tokens come",
     Set<&Request::stream>},
    {"stream_options", kGenerate, FieldType::kObject, 0, 0, "include_usage, continuous_usage_stats",
     TakeStreamOptions},
    {"cache_salt", kSampled, FieldType::kText, 0, 0,
     "the prompt shares cached beginnings with requests of the same salt only", TakeCacheSalt},
    {"priority", kSampled, FieldType::kInteger, -2147483648.0, 2147483647.0,
     "lower ones go first; a step counts as 256 iterations of waiting", Set<&Request::priority>},
    {"response_format", kGenerate, FieldType::kObject, 0, 0,
     "the text's form: text, json_object or json_schema", TakeForm<ReadResponseFormat>},
    {"structured_outputs", kGenerate, FieldType::kObject, 0, 0,
     "the same in vLLM's words: json, json_object, choice or regex",
     TakeForm<ReadStructuredOutputs>},
    {"guided_json", kGenerate, FieldType::kAny, 0, 0, "the JSON schema of the text",
     TakeForm<ReadGuidedJson>},
    {"guided_choice", kGenerate, FieldType::kTexts, 0, 0, "texts of which it is one",
     TakeForm<ReadGuidedChoice>},
    {"guided_regex", kGenerate, FieldType::kText, 0, 0, "a regular expression that it matches",
     TakeForm<ReadGuidedRegex>},
    {"parallel_tool_calls", kChat | kResponses, FieldType::kBool, 0, 0, "only true",
     OnlyBool<true>},
    {"store", kChat | kResponses, FieldType::kBool, 0, 0, "only false", OnlyBool<false>},
    {"user", kSampled, FieldType::kText, 0, 0, "whom the request is for; not looked at", Ignore},
    {"suffix", kCompletion, FieldType::kText, 0, 0, "not supported", Unsupported},
};

}  // namespace

std::span<const FieldRow> FieldTable() { return kRows; }

}  // namespace wideload::serve
