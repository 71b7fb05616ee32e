// The answer to one completion or chat: takes what its sequences generate and writes it to the
// client, whole or as server-sent events. Lives on the HTTP server's thread.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "runtime/generation.h"
#include "serve/http_server.h"
#include "serve/message_reader.h"
#include "serve/metrics.h"
#include "serve/responses_writer.h"
#include "serve/served_model.h"

namespace wideload::serve {

class Answer {
 public:
  // What is known before the first token.
  struct Start {
    Operation operation = kCompletion;
    ApiRequest request;
    std::string id;       // cmpl-..., chatcmpl-...
    int64_t created = 0;  // seconds since 1970
    std::chrono::steady_clock::time_point arrival;
    std::vector<std::vector<int32_t>> prompts;  // of each choice
    MessageForm form;                           // of a chat
  };

  // `model` and `metrics` must outlive it.
  Answer(const ServedModel& model, Metrics& metrics, HttpExchange exchange, Start start);

  // Takes what choice `i` generated.
  void Take(size_t i, runtime::Delta delta);
  // All choices have ended.
  bool has_ended() const { return num_open_ == 0; }
  // A choice has failed: the others are of no use any more.
  bool has_failed() const { return has_failed_; }

 private:
  struct Choice {
    std::vector<int32_t> prompt;
    std::vector<int32_t> ids;
    std::string text;
    std::vector<runtime::TokenLogprob> logprobs;          // of the delta at hand
    std::vector<std::vector<runtime::TokenLogprob>> all;  // of all tokens, where it is not streamed
    std::vector<std::vector<runtime::TokenLogprob>> prompt_logprobs;
    std::string finish_reason;            // "": none yet
    std::optional<MessageReader> reader;  // of a form that is not plain
    std::string thoughts;
    size_t num_thoughts_sent = 0;    // bytes, of a stream
    int64_t num_thought_tokens = 0;  // that brought some
    std::vector<ToolCall> calls;
    size_t num_calls_sent = 0;      // of a stream
    int64_t text_offset = 0;        // of the next token, in characters
    int64_t num_cached_tokens = 0;  // of the prompt
    bool has_begun = false;
    std::chrono::steady_clock::time_point begun, first_token, last_token;  // begun: as Delta
  };

  void Note(size_t i, runtime::Delta delta);
  void NoteToken(Choice& choice);
  void NoteEnd(const Choice& choice, runtime::FinishReason reason);
  static std::string NewThoughts(Choice& choice);
  void WriteResponses(ResponsesWriter& responses, Choice& choice, const runtime::Delta& delta);
  void ReadMessage(MessageReader& reader, Choice& choice, runtime::Delta& delta);
  void Fail(const std::string& message);
  void RespondWhole();
  void StreamDelta(size_t i, const runtime::Delta& delta);
  void StreamChunk(Json choice, bool with_usage);
  void BeginChoice(size_t i);
  void WriteEvent(const std::string& data);

  std::string PromptText(const Choice& choice) const;
  Json Envelope(bool is_chunk) const;
  Json WholeChoice(size_t i) const;
  Json Usage() const;
  std::string CallId(size_t i, size_t call) const;
  Json CallJson(size_t i, size_t call) const;
  Json ChatLogprobs(std::span<const std::vector<runtime::TokenLogprob>> tokens) const;
  Json TextLogprobs(std::span<const std::vector<runtime::TokenLogprob>> tokens,
                    std::span<const int32_t> ids, int64_t& offset) const;
  Json PromptLogprobs(const Choice& choice) const;
  void AddPrompt(const Choice& choice, Json& json) const;

  const ServedModel& model_;
  Metrics& metrics_;
  HttpExchange exchange_;
  Start start_;
  std::optional<ResponsesWriter> responses_;  // of /v1/responses
  std::vector<Choice> choices_;
  size_t num_open_;
  bool is_streaming_ = false;     // its head has been written
  bool has_told_prompt_ = false;  // of a chat that is streamed
  bool has_failed_ = false;
};

}  // namespace wideload::serve
