#include "serve/answer.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "base/log.h"
#include "tokenizer/unicode.h"

namespace wideload::serve {
namespace {

using Clock = std::chrono::steady_clock;
using Logprobs = std::vector<runtime::TokenLogprob>;

double Seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

const char* FinishText(runtime::FinishReason reason) {
  switch (reason) {
    case runtime::FinishReason::kStop:
      return "stop";
    case runtime::FinishReason::kLength:
      return "length";
    default:
      return "abort";  // cancelled, or the deadline came first
  }
}

// A key for a token in a mapping: bytes that are no text get one of their own.
std::string TokenKey(const tokenizer::Tokenizer& tokenizer, int32_t id) {
  std::string bytes(tokenizer.TokenBytes(id));
  if (tokenizer::IsValidUtf8(bytes)) return bytes;
  std::string key = "bytes:";
  for (const char byte : bytes) key += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
  return key;
}

int64_t NumCharacters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

}  // namespace

Answer::Answer(const ServedModel& model, Metrics& metrics, HttpExchange exchange, Start start)
    : model_(model),
      metrics_(metrics),
      exchange_(std::move(exchange)),
      start_(std::move(start)),
      choices_(start_.prompts.size()),
      num_open_(start_.prompts.size()) {
  for (size_t i = 0; i < choices_.size(); ++i) {
    choices_[i].prompt = std::move(start_.prompts[i]);
    if (!start_.form.is_plain()) choices_[i].reader.emplace(start_.form);
  }
  if (start_.operation == kResponses)
    responses_.emplace(ResponsesWriter::Head{.id = start_.id,
                                             .created = start_.created,
                                             .model = model_.name,
                                             .said = std::move(start_.request.said)});
}

void Answer::Take(size_t i, runtime::Delta delta) {
  if (delta.is_last()) --num_open_;
  try {
    Note(i, std::move(delta));
  } catch (const std::exception& failure) {
    LogWarn("{}: {}", start_.id, failure.what());
    if (!has_failed_) Fail("the answer could not be written");
  }
}

void Answer::Note(size_t i, runtime::Delta delta) {
  Choice& choice = choices_[i];
  choice.begun = std::max(choice.begun, delta.begun);
  if (delta.token >= 0) NoteToken(choice);
  if (!delta.prompt_logprobs.empty()) choice.prompt_logprobs = std::move(delta.prompt_logprobs);
  if (delta.token >= 0) choice.ids.push_back(delta.token);
  choice.num_cached_tokens = std::max(choice.num_cached_tokens, delta.num_cached_tokens);
  if (delta.is_last()) choice.finish_reason = FinishText(delta.finish);
  if (choice.reader) ReadMessage(*choice.reader, choice, delta);
  if (delta.is_last()) NoteEnd(choice, delta.finish);
  if (has_failed_) return;
  if (delta.finish == runtime::FinishReason::kError) return Fail(delta.error);
  if (responses_) return WriteResponses(*responses_, choice, delta);
  if (start_.request.stream) return StreamDelta(i, delta);
  choice.text += delta.text;
  if (delta.token >= 0) choice.all.push_back(std::move(delta.logprobs));
  if (has_ended()) RespondWhole();
}

// Takes thoughts and calls out of the text.
void Answer::ReadMessage(MessageReader& reader, Choice& choice, runtime::Delta& delta) {
  std::string content;
  const auto take = [&](MessagePart part) {
    choice.thoughts += part.thoughts;
    if (delta.token >= 0 && !part.thoughts.empty()) ++choice.num_thought_tokens;
    content += part.content;
    std::move(part.calls.begin(), part.calls.end(), std::back_inserter(choice.calls));
  };
  take(reader.Feed(delta.text));
  if (delta.is_last()) take(reader.Flush());
  if (delta.is_last() && !choice.calls.empty() && choice.finish_reason == "stop")
    choice.finish_reason = "tool_calls";
  delta.text = std::move(content);
}

// What came since the last time.
std::string Answer::NewThoughts(Choice& choice) {
  std::string thoughts = choice.thoughts.substr(choice.num_thoughts_sent);
  choice.num_thoughts_sent = choice.thoughts.size();
  return thoughts;
}

// The one choice, under the names of /v1/responses.
void Answer::WriteResponses(ResponsesWriter& responses, Choice& choice,
                            const runtime::Delta& delta) {
  const auto send = [this](const ResponsesWriter::Events& events) {
    for (const Json& event : events)
      exchange_.Write(fmt::format("event: {}\ndata: {}\n\n", event["type"].get<std::string>(),
                                  DumpJson(event)));
  };
  const bool is_streamed = start_.request.stream;
  if (is_streamed && !std::exchange(is_streaming_, true)) {
    exchange_.BeginStream("text/event-stream");
    send(responses.Begin());
  }
  MessagePart part{.thoughts = NewThoughts(choice), .content = delta.text, .calls = {}};
  for (; choice.num_calls_sent < choice.calls.size(); ++choice.num_calls_sent) {
    part.calls.push_back(choice.calls[choice.num_calls_sent]);
    part.calls.back().id = CallId(0, choice.num_calls_sent);
  }
  ResponsesWriter::Events events = responses.Take(part);
  if (is_streamed) send(events);
  if (!delta.is_last()) return;
  const size_t prompt_tokens = choice.prompt.size(), generated_tokens = choice.ids.size();
  events =
      responses.End(choice.finish_reason,
                    {{"input_tokens", prompt_tokens},
                     {"input_tokens_details", {{"cached_tokens", choice.num_cached_tokens}}},
                     {"output_tokens", generated_tokens},
                     {"output_tokens_details", {{"reasoning_tokens", choice.num_thought_tokens}}},
                     {"total_tokens", prompt_tokens + generated_tokens}});
  if (!is_streamed) return exchange_.Respond({.body = DumpJson(responses.Object())});
  send(events);
  exchange_.End();
}

std::string Answer::CallId(size_t i, size_t call) const {
  const std::string& id = choices_[i].calls[call].id;
  return id.empty() ? fmt::format("call_{}_{}_{}", start_.id, i, call) : id;
}

Json Answer::CallJson(size_t i, size_t call) const {
  const ToolCall& found = choices_[i].calls[call];
  return {{"id", CallId(i, call)},
          {"type", "function"},
          {"function", {{"name", found.name}, {"arguments", found.arguments}}}};
}

void Answer::NoteToken(Choice& choice) {
  const auto now = Clock::now();
  if (choice.ids.empty()) {
    choice.first_token = now;
    metrics_.NoteFirstToken(Seconds(now - start_.arrival));
  } else {
    metrics_.NoteNextToken(Seconds(now - choice.last_token));
  }
  choice.last_token = now;
}

void Answer::NoteEnd(const Choice& choice, runtime::FinishReason reason) {
  ChoiceFigures figures{.prompt_tokens = static_cast<int64_t>(choice.prompt.size()),
                        .generated_tokens = static_cast<int64_t>(choice.ids.size()),
                        .latency_s = Seconds(Clock::now() - start_.arrival),
                        .decode_s = Seconds(choice.last_token - choice.first_token),
                        .finish_reason = FinishReasonName(reason)};
  const bool is_begin_known = choice.begun != Clock::time_point();
  if (is_begin_known) figures.queue_s = Seconds(choice.begun - start_.arrival);
  if (is_begin_known && !choice.ids.empty())
    figures.prefill_s = Seconds(choice.first_token - choice.begun);
  metrics_.NoteChoice(figures);
}

void Answer::Fail(const std::string& message) {
  has_failed_ = true;
  const Refusal refusal{.status = 500, .message = message, .code = "engine_error"};
  if (!is_streaming_) return exchange_.Respond(RefusalResponse(refusal));
  exchange_.Write(ErrorEvent(refusal, responses_.has_value()));
  exchange_.End();
}

Json Answer::Envelope(bool is_chunk) const {
  const bool is_chat = start_.operation == kChat;
  const char* object = !is_chat   ? "text_completion"
                       : is_chunk ? "chat.completion.chunk"
                                  : "chat.completion";
  return {{"id", start_.id},
          {"object", object},
          {"created", start_.created},
          {"model", model_.name},
          {"choices", Json::array()}};
}

// Of each prompt once, whatever the number of its choices.
Json Answer::Usage() const {
  size_t prompt_tokens = 0, generated_tokens = 0;
  int64_t cached_tokens = 0;
  for (size_t i = 0; i < choices_.size(); ++i) {
    if (i % static_cast<size_t>(start_.request.num_choices) == 0) {
      prompt_tokens += choices_[i].prompt.size();
      cached_tokens += choices_[i].num_cached_tokens;
    }
    generated_tokens += choices_[i].ids.size();
  }
  return {{"prompt_tokens", prompt_tokens},
          {"completion_tokens", generated_tokens},
          {"total_tokens", prompt_tokens + generated_tokens},
          {"prompt_tokens_details", {{"cached_tokens", cached_tokens}}}};
}

std::string Answer::PromptText(const Choice& choice) const {
  const auto index = static_cast<size_t>(&choice - choices_.data());
  const Prompt& prompt =
      start_.request.prompts[index / static_cast<size_t>(start_.request.num_choices)];
  return prompt.is_ids ? model_.tokenizer->Decode(choice.prompt, start_.request.skip_special)
                       : prompt.text;
}

Json Answer::ChatLogprobs(std::span<const Logprobs> tokens) const {
  const auto entry = [this](const runtime::TokenLogprob& logprob) -> Json {
    const std::string_view bytes = model_.tokenizer->TokenBytes(logprob.id);
    return {{"token", std::string(bytes)},
            {"logprob", logprob.logprob},
            {"bytes", std::vector<uint8_t>(bytes.begin(), bytes.end())}};
  };
  Json content = Json::array();
  for (const Logprobs& logprobs : tokens) {
    if (logprobs.empty()) continue;
    Json token = entry(logprobs.front());
    token["top_logprobs"] = Json::array();
    for (const runtime::TokenLogprob& top : std::span(logprobs).subspan(1))
      token["top_logprobs"].push_back(entry(top));
    content.push_back(std::move(token));
  }
  return {{"content", std::move(content)}};
}

// A token without log probabilities, the prompt's first, has null. The chosen token is among the
// likeliest always.
Json Answer::TextLogprobs(std::span<const Logprobs> tokens, std::span<const int32_t> ids,
                          int64_t& offset) const {
  Json result = {{"tokens", Json::array()},
                 {"token_logprobs", Json::array()},
                 {"top_logprobs", Json::array()},
                 {"text_offset", Json::array()}};
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::string key = TokenKey(*model_.tokenizer, ids[i]);
    result["tokens"].push_back(key);
    result["text_offset"].push_back(offset);
    offset += NumCharacters(key);
    if (tokens[i].empty()) {
      result["token_logprobs"].push_back(nullptr);
      result["top_logprobs"].push_back(nullptr);
      continue;
    }
    result["token_logprobs"].push_back(tokens[i].front().logprob);
    Json top = Json::object();
    for (const runtime::TokenLogprob& logprob : tokens[i])
      top[TokenKey(*model_.tokenizer, logprob.id)] = logprob.logprob;
    result["top_logprobs"].push_back(std::move(top));
  }
  return result;
}

Json Answer::PromptLogprobs(const Choice& choice) const {
  Json result = Json::array();
  for (const Logprobs& logprobs : choice.prompt_logprobs) {
    Json position = logprobs.empty() ? Json(nullptr) : Json::object();
    for (const runtime::TokenLogprob& logprob : logprobs)
      position[std::to_string(logprob.id)] = {
          {"logprob", logprob.logprob}, {"decoded_token", TokenKey(*model_.tokenizer, logprob.id)}};
    result.push_back(std::move(position));
  }
  return result;
}

Json Answer::WholeChoice(size_t i) const {
  const Choice& choice = choices_[i];
  const ApiRequest& request = start_.request;
  Json json = {{"index", i}, {"finish_reason", choice.finish_reason}, {"logprobs", nullptr}};
  const bool wants_logprobs = request.num_logprobs >= 0;
  if (start_.operation == kChat) {
    json["message"] = {{"role", "assistant"}, {"content", choice.text}};
    if (!choice.thoughts.empty()) json["message"]["reasoning_content"] = choice.thoughts;
    for (size_t call = 0; call < choice.calls.size(); ++call)
      json["message"]["tool_calls"].push_back(CallJson(i, call));
    if (!choice.calls.empty() && choice.text.empty()) json["message"]["content"] = nullptr;
    if (wants_logprobs) json["logprobs"] = ChatLogprobs(choice.all);
  } else {
    json["text"] = (request.echo ? PromptText(choice) : "") + choice.text;
    std::vector<Logprobs> logprobs;
    std::vector<int32_t> ids;
    if (request.echo) {
      logprobs = choice.prompt_logprobs;
      ids = choice.prompt;
    }
    logprobs.insert(logprobs.end(), choice.all.begin(), choice.all.end());
    ids.insert(ids.end(), choice.ids.begin(), choice.ids.end());
    int64_t offset = 0;
    if (wants_logprobs) json["logprobs"] = TextLogprobs(logprobs, ids, offset);
  }
  if (request.return_token_ids) json["token_ids"] = choice.ids;
  if (start_.operation == kCompletion) AddPrompt(choice, json);
  return json;
}

// What is told of a choice's prompt: beside the choice, or once of the one prompt of a chat.
void Answer::AddPrompt(const Choice& choice, Json& json) const {
  if (start_.request.prompt_logprobs >= 0) json["prompt_logprobs"] = PromptLogprobs(choice);
  if (start_.request.return_token_ids) json["prompt_token_ids"] = choice.prompt;
}

void Answer::RespondWhole() {
  Json body = Envelope(false);
  for (size_t i = 0; i < choices_.size(); ++i) body["choices"].push_back(WholeChoice(i));
  if (start_.operation == kChat) AddPrompt(choices_.front(), body);
  body["usage"] = Usage();
  exchange_.Respond({.body = DumpJson(body)});
}

void Answer::WriteEvent(const std::string& data) { exchange_.Write("data: " + data + "\n\n"); }

// Of a chat; the first chunk of all tells the prompt, too.
void Answer::BeginChoice(size_t i) {
  StreamChunk({{"index", i},
               {"delta", {{"role", "assistant"}, {"content", ""}}},
               {"logprobs", nullptr},
               {"finish_reason", nullptr}},
              false);
}

void Answer::StreamChunk(Json choice, bool with_usage) {
  Json chunk = Envelope(true);
  if (start_.operation == kChat && !std::exchange(has_told_prompt_, true))
    AddPrompt(choices_.front(), chunk);
  if (!choice.is_null()) chunk["choices"].push_back(std::move(choice));
  if (with_usage)
    chunk["usage"] = Usage();
  else if (start_.request.include_usage)
    chunk["usage"] = nullptr;
  WriteEvent(DumpJson(chunk));
}

void Answer::StreamDelta(size_t i, const runtime::Delta& delta) {
  const ApiRequest& request = start_.request;
  const bool is_chat = start_.operation == kChat;
  Choice& choice = choices_[i];
  if (!std::exchange(is_streaming_, true)) exchange_.BeginStream("text/event-stream");
  const bool is_first = !std::exchange(choice.has_begun, true);
  if (is_chat && is_first) BeginChoice(i);
  const bool wants_logprobs = request.num_logprobs >= 0 && delta.token >= 0;
  const bool echoes = request.echo && is_first;
  const bool has_calls = choice.num_calls_sent < choice.calls.size();
  const std::string thoughts = NewThoughts(choice);
  const bool is_empty = delta.text.empty() && !wants_logprobs && !echoes && !delta.is_last() &&
                        !request.return_token_ids && !has_calls && thoughts.empty();
  if (!is_empty) {
    Json json = {{"index", i},
                 {"logprobs", nullptr},
                 {"finish_reason", delta.is_last() ? Json(choice.finish_reason) : Json(nullptr)}};
    if (is_chat) {
      json["delta"] = Json::object();
      if (!thoughts.empty()) json["delta"]["reasoning_content"] = thoughts;
      if (!delta.text.empty()) json["delta"]["content"] = delta.text;
      for (; choice.num_calls_sent < choice.calls.size(); ++choice.num_calls_sent) {
        Json call = CallJson(i, choice.num_calls_sent);
        call["index"] = choice.num_calls_sent;
        json["delta"]["tool_calls"].push_back(std::move(call));
      }
      if (wants_logprobs) json["logprobs"] = ChatLogprobs({&delta.logprobs, 1});
    } else {
      json["text"] = (echoes ? PromptText(choice) : "") + delta.text;
      std::vector<Logprobs> logprobs;
      std::vector<int32_t> ids;
      if (echoes) {
        logprobs = choice.prompt_logprobs;
        ids = choice.prompt;
      }
      if (wants_logprobs) {
        logprobs.push_back(delta.logprobs);
        ids.push_back(delta.token);
      }
      if (request.num_logprobs >= 0)
        json["logprobs"] = TextLogprobs(logprobs, ids, choice.text_offset);
    }
    if (request.return_token_ids) {
      json["token_ids"] = delta.token >= 0 ? Json{delta.token} : Json::array();
      if (is_first && !is_chat) json["prompt_token_ids"] = choice.prompt;
    }
    StreamChunk(std::move(json), request.continuous_usage);
  }
  if (!has_ended()) return;
  if (request.include_usage) StreamChunk(nullptr, true);
  WriteEvent("[DONE]");
  exchange_.End();
}

}  // namespace wideload::serve
