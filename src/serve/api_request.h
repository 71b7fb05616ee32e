// What a client asks, as plain values, and how a JSON body becomes one. The table of fields is the
// one place that knows them: parsing and /openapi.json read it. Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "config/flags.h"
#include "jinja/value.h"
#include "runtime/request.h"
#include "serve/refusal.h"
#include "serve/text_form.h"

namespace wideload::serve {

// What a body is of; a bit each.
enum Operation : unsigned {
  kCompletion = 1,
  kChat = 2,
  kTokenize = 4,
  kDetokenize = 8,
  kApplyTemplate = 16,
  kResponses = 32,
};
// A conversation is answered.
constexpr bool IsChat(Operation operation) { return operation == kChat || operation == kResponses; }

// A prompt: a text or token ids.
struct Prompt {
  std::string text;
  std::vector<int32_t> ids;
  bool is_ids = false;
};

struct ApiRequest {
  std::string model;  // "": not said
  std::vector<Prompt> prompts;
  // The conversation, with messages' keys in their order; texts are plain.
  std::vector<jinja::Value> messages;
  jinja::Value tools{jinja::None{}};
  jinja::Value template_variables{jinja::None{}};
  std::optional<bool> add_generation_prompt;  // not said: where no message is gone on with
  bool continue_final_message = false;
  std::string reasoning_effort;                   // a variable of the template; "": not said
  std::string effort_field = "reasoning_effort";  // that says it
  bool has_messages = false;

  config::SamplingFlags sampling;  // what is said; seed and logprobs apart
  std::optional<uint64_t> seed;
  std::optional<int64_t> max_completion_tokens;
  int64_t min_tokens = 0;
  int32_t num_choices = 1;
  int32_t num_logprobs = -1;    // of generated tokens, and of the prompt with echo; -1: none
  bool wants_logprobs = false;  // of a chat
  int32_t prompt_logprobs = -1;
  std::vector<runtime::TokenBias> logit_bias;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_ids;
  bool echo = false;
  bool skip_special = true;
  std::optional<bool> add_special_tokens;
  bool return_token_ids = false;
  bool return_token_strings = false;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;
  ToolChoice tool_choice;
  TextForm form;
  std::string cache_salt;    // requests of different salts share no prefixes
  int32_t priority = 0;      // lower ones go first
  std::vector<int32_t> ids;  // to be made text
  Json said;                 // of responses: the body's fields but for the input
};

// What JSON a field takes.
enum class FieldType {
  kBool,
  kInteger,
  kNumber,
  kText,
  kTexts,   // a text or a list of texts
  kPrompt,  // a text, a list of texts, of ids, or of lists of ids
  kIds,     // a list of ids
  kObject,
  kObjects,  // a list of objects
  kAny,
};

// One field of a request's body.
struct FieldRow {
  std::string_view name;
  unsigned operations = 0;
  FieldType type = FieldType::kAny;
  double min = 0, max = 0;  // of numbers, inclusive
  std::string_view help;
  // Takes a value of the type. Returns what is wrong with it, after the field's name; "": nothing.
  std::string (*take)(const Json& value, ApiRequest& request) = nullptr;
};
// All fields that a request may have.
std::span<const FieldRow> FieldTable();

// Reads a body. Fields that are null count as absent. Returns what is wrong with it, naming the
// field: one that is not known or not supported, of a wrong type or out of range.
std::optional<Refusal> ParseApiRequest(Operation operation, std::string_view body,
                                       ApiRequest& request);

}  // namespace wideload::serve
