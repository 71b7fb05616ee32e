// The answer of /v1/responses: its items as a model's message comes, the events of a stream, and
// the whole object. Pure; not thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "serve/message_reader.h"

namespace wideload::serve {

class ResponsesWriter {
 public:
  // What is known before the first token.
  struct Head {
    std::string id;
    int64_t created = 0;  // seconds since 1970
    std::string model;
    Json said = Json::object();  // the fields that the request had, but for its input
  };
  explicit ResponsesWriter(Head head);

  // Each event has its type and sequence_number.
  using Events = std::vector<Json>;
  // Before anything else.
  Events Begin();
  // What has come of the message; calls have ids.
  Events Take(const MessagePart& part);
  // No more comes: ended as the chat's finish_reason says; the last event has the whole object.
  Events End(std::string_view finish_reason, Json usage);
  // The object as it is now.
  Json Object() const;

 private:
  enum class Kind { kNone, kThoughts, kText };
  void Add(Events& events, const char* type, Json fields);
  void Open(Kind kind, Events& events);
  void Close(Events& events, std::string_view status = "completed");
  void Write(Kind kind, std::string_view text, Events& events);
  void WriteCall(const ToolCall& call, Events& events);
  Json Place() const;
  Json Part() const;

  Head head_;
  std::string status_ = "in_progress";
  Json incomplete_details_;
  Json usage_;
  Json output_ = Json::array();  // the last item of which is open, if one is
  Kind open_ = Kind::kNone;
  std::string text_;  // of the open item
  int64_t num_events_ = 0;
};

}  // namespace wideload::serve
