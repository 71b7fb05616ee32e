#include "serve/served_model.h"

#include <algorithm>

#include "base/error.h"
#include "runtime/sampling_choice.h"
#include "runtime/text_limits.h"
#include "serve/answer_grammar.h"

namespace wideload::serve {
namespace {

constexpr int64_t kDefaultCompletionTokens = 16;  // OpenAI's
constexpr size_t kMaxJobs = 256;                  // of one request

Refusal TooLong(const ServedModel& model, const std::string& found, const std::string& param) {
  return {.message = fmt::format("{}; the model's context holds {} tokens", found, model.max_len()),
          .param = param,
          .code = "context_length_exceeded"};
}

std::string PromptField(Operation operation) {
  return operation == kChat ? "messages" : operation == kResponses ? "input" : "prompt";
}

// The field that a refusal of the engine is about: it begins with it.
std::string FieldOf(Operation operation, std::string_view wrong) {
  const std::string_view first = wrong.substr(0, wrong.find(' '));
  if (first == "the" || first == "prompt") return PromptField(operation);
  if (first == "max_tokens" && operation == kResponses) return "max_output_tokens";
  for (const FieldRow& row : FieldTable())
    if (row.name == first && (row.operations & operation) != 0) return std::string(first);
  return "";
}

runtime::SamplingParams SamplingFor(const ServedModel& model, const ApiRequest& request,
                                    uint64_t seed) {
  config::SamplingFlags choice = request.sampling;
  choice.seed = request.seed.value_or(seed);
  if (request.num_logprobs >= 0) choice.logprobs = request.num_logprobs;
  runtime::SamplingParams params = runtime::ChooseSampling(choice, model.generation);
  // OpenAI's default, where nobody says anything.
  const bool is_said =
      choice.temperature || model.generation.temperature || model.generation.do_sample;
  if (!is_said) params.temperature = 1;
  return params;
}

// What tools a request has changes something: the template has them, or calls are looked for.
bool ShowsTools(const chat::ChatTemplate& chat_template, const MessageForm& form) {
  return form.tools != ToolForm::kNone || form.has_channels ||
         chat_template.text(true).find("tools") != std::string::npos;
}

// Where the template does not know it, nothing would come of it.
std::optional<Refusal> AddEffort(const chat::ChatTemplate& chat_template, const ApiRequest& request,
                                 chat::ChatInput& input) {
  const std::string& effort = request.reasoning_effort;
  if (effort.empty()) return std::nullopt;
  const std::string& text = chat_template.text(!input.tools.IsNone());
  const auto has = [&text](std::string_view word) { return text.find(word) != std::string::npos; };
  std::string wrong;
  if (!has("reasoning_effort"))
    wrong = fmt::format("is not supported: the model's chat template does not know it{}",
                        has("enable_thinking")
                            ? R"(; it has chat_template_kwargs: {"enable_thinking": false})"
                            : "");
  else if (has("<|channel|>") && effort != "low" && effort != "medium" && effort != "high")
    wrong = fmt::format("is {}; this model knows low, medium and high", effort);
  input.variables.emplace_back("reasoning_effort", jinja::Value::Text(effort, true));
  if (wrong.empty()) return std::nullopt;
  return Refusal{.message = fmt::format("{} {}", request.effort_field, wrong),
                 .param = request.effort_field,
                 .code = "unsupported_value"};
}

std::vector<int32_t> EndIds(const ServedModel& model, const ApiRequest& request) {
  std::vector<int32_t> ids;
  if (!request.sampling.ignore_eos) ids = model.eos_ids;
  ids.insert(ids.end(), request.stop_ids.begin(), request.stop_ids.end());
  return ids;
}

std::optional<Refusal> MakeJob(const ServedModel& model, Operation operation,
                               const ApiRequest& request, std::vector<int32_t> ids,
                               runtime::Job& job) {
  const int64_t room = model.max_len() - static_cast<int64_t>(ids.size());
  if (room < 0)
    return TooLong(model, fmt::format("the prompt has {} tokens", ids.size()),
                   PromptField(operation));
  runtime::Request& r = job.request;
  const int64_t by_default = IsChat(operation) ? room : std::min(room, kDefaultCompletionTokens);
  r.max_tokens = request.sampling.max_tokens.value_or(by_default);
  if (r.max_tokens > room)
    return TooLong(
        model,
        fmt::format("the prompt has {} tokens and max_tokens is {}", ids.size(), r.max_tokens),
        FieldOf(operation, "max_tokens"));
  for (const int32_t id : request.stop_ids)
    if (id >= model.vocab_size)
      return Refusal{.message = fmt::format("stop_token_ids has {}; allowed: 0 to {}", id,
                                            model.vocab_size - 1),
                     .param = "stop_token_ids",
                     .code = "invalid_value"};
  r.prompt = std::move(ids);
  r.eos_ids = EndIds(model, request);
  r.min_tokens = request.min_tokens;
  r.logit_bias = request.logit_bias;
  r.cache_salt = request.cache_salt;
  r.priority = request.priority;
  job.text = {.stop = request.stop, .skip_special = request.skip_special};
  job.prompt_logprobs = request.prompt_logprobs >= 0 ? request.prompt_logprobs
                        : request.echo               ? request.num_logprobs
                                                     : -1;
  if (std::string wrong = runtime::InvalidStop(request.stop); !wrong.empty())
    return Refusal{.message = "stop " + wrong, .param = "stop", .code = "invalid_value"};
  std::string wrong = runtime::RefusalReason(r, model.engine, model.vocab_size);
  if (wrong.empty()) return std::nullopt;
  std::string field = FieldOf(operation, wrong);
  return Refusal{.message = std::move(wrong), .param = std::move(field), .code = "invalid_value"};
}

}  // namespace

std::optional<Refusal> EncodePrompt(const ServedModel& model, const ApiRequest& request,
                                    const Prompt& prompt, std::vector<int32_t>& ids) {
  if (prompt.is_ids) {
    ids = prompt.ids;
    return std::nullopt;
  }
  if (static_cast<int64_t>(prompt.text.size()) > model.max_text_bytes)
    return TooLong(model, fmt::format("the prompt has {} bytes", prompt.text.size()), "prompt");
  const tokenizer::Tokenizer& tokenizer = *model.tokenizer;
  if (request.add_special_tokens.value_or(true)) ids = tokenizer.PrefixIds();
  const std::vector<int32_t> encoded = tokenizer.Encode(prompt.text);
  ids.insert(ids.end(), encoded.begin(), encoded.end());
  return std::nullopt;
}

std::optional<Refusal> RenderChat(const ServedModel& model, const ApiRequest& request,
                                  RenderedChat& rendered) {
  if (model.chat_template == nullptr)
    return Refusal{.message = "the model has no chat template; use /v1/completions",
                   .param = "messages",
                   .code = "no_chat_template"};
  chat::ChatInput input{.messages = request.messages,
                        .add_generation_prompt =
                            request.add_generation_prompt.value_or(!request.continue_final_message),
                        .continue_final_message = request.continue_final_message,
                        .variables = model.template_variables};
  if (request.tool_choice.kind != ToolChoice::Kind::kNone) input.tools = request.tools;
  if (auto refusal = AddEffort(*model.chat_template, request, input)) return refusal;
  if (!request.template_variables.IsNone())
    chat::AddVariables(request.template_variables, "chat_template_kwargs", input);
  const auto parts = model.chat_template->Render(input, {.now = model.now()});
  rendered.text = chat::JoinedText(parts);
  rendered.form =
      MessageFormOf(model.chat_template->text(!input.tools.IsNone()), rendered.text, input.tools);
  if (request.continue_final_message)
    GoOn(request.messages.back().Map()->Find("content")->Str()->text(), rendered.form);
  if (!input.tools.IsNone() && request.tool_choice.kind == ToolChoice::Kind::kAuto &&
      !ShowsTools(*model.chat_template, rendered.form))
    return Refusal{.message =
                       "tools is not supported by the model's chat template, which shows "
                       "none; leave them out, or set tool_choice to \"none\"",
                   .param = "tools",
                   .code = "unsupported_value"};
  if (static_cast<int64_t>(rendered.text.size()) > model.max_text_bytes)
    return TooLong(model, fmt::format("the conversation has {} bytes", rendered.text.size()),
                   "messages");
  if (request.add_special_tokens.value_or(false)) rendered.ids = model.tokenizer->PrefixIds();
  const std::vector<int32_t> ids = model.tokenizer->EncodeParts(parts);
  rendered.ids.insert(rendered.ids.end(), ids.begin(), ids.end());
  return std::nullopt;
}

std::optional<Refusal> MakeJobs(const ServedModel& model, Operation operation,
                                const ApiRequest& request, uint64_t seed, Jobs& made) {
  const auto num_choices = static_cast<size_t>(request.num_choices);
  const size_t num_prompts = IsChat(operation) ? 1 : request.prompts.size();
  if (num_prompts * num_choices > kMaxJobs)
    return Refusal{
        .message = fmt::format("{} prompts x n = {} are {} sequences; at most {} are "
                               "allowed in a request",
                               num_prompts, num_choices, num_prompts * num_choices, kMaxJobs),
        .param = "n",
        .code = "invalid_value"};
  const runtime::SamplingParams sampling = SamplingFor(model, request, seed);
  for (size_t p = 0; p < num_prompts; ++p) {
    RenderedChat chat;
    auto refusal = IsChat(operation) ? RenderChat(model, request, chat)
                                     : EncodePrompt(model, request, request.prompts[p], chat.ids);
    if (refusal) return refusal;
    made.form = chat.form;
    std::shared_ptr<grammar::TokenGrammar> grammar;
    refusal = AnswerGrammar(model, request, IsChat(operation) ? &chat : nullptr, grammar);
    if (refusal) return refusal;
    for (size_t i = 0; i < num_choices; ++i) {
      runtime::Job& job = made.jobs.emplace_back();
      job.request.sampling = sampling;
      job.request.index = p * num_choices + i;
      job.request.grammar = grammar;
      refusal = MakeJob(model, operation, request, chat.ids, job);
      if (refusal) return refusal;
      if (chat.form.needs_special_tokens()) job.text.skip_special = false;
    }
  }
  return std::nullopt;
}

}  // namespace wideload::serve
