// What an OpenAI-compatible server sends while it generates: server-sent events, each with a chunk
// of a completion or chat. Pure; foreign bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace wideload::loadclient {

// Takes events apart as their bytes come, in whatever pieces.
class EventReader {
 public:
  // Calls take(data) for each event that these bytes complete; lines other than data: are left out.
  // Errors: kCorrupt when an event has more than 16 MiB; those of `take`.
  void Feed(std::string_view bytes, const std::function<void(std::string_view data)>& take);

 private:
  void TakeLine(std::string_view line, const std::function<void(std::string_view data)>& take);

  std::string line_;  // its beginning
  std::string data_;
  bool has_data_ = false;
};

// What matters of a chunk to who measures.
struct Chunk {
  bool has_choice = false;  // choices is not empty
  std::string text;         // of the first choice: text, or its delta's content and thoughts
  int64_t prompt_tokens = -1, completion_tokens = -1;  // of usage; -1: not said
  std::string error;  // of an error event: its code, type or message; "" of others
};
// `data` of an event other than [DONE]. Errors: kCorrupt when it is no JSON object of this kind.
Chunk ParseChunk(std::string_view data);

// What to call an answer of this status with this body: "429 overloaded", with the code of OpenAI's
// error envelope, its type, or nothing.
std::string ErrorName(int status, std::string_view body);

}  // namespace wideload::loadclient
