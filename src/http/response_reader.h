// An HTTP/1.1 response out of the bytes of a connection, as they come (RFC 9112). Pure; foreign
// bytes. Not thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/thread_pool.h"

namespace wideload::http {

// Whether that is the name of the field, whose letters may be large or small; `small` has small
// ones.
bool IsFieldName(std::string_view name, std::string_view small);

// What comes before the body.
struct ResponseHead {
  int status = 0;
  std::vector<std::pair<std::string, std::string>> fields;  // in their order, names as they came
  bool is_chunked = false;

  // The value of the first field of this name, which is in small letters; "" when there is none.
  std::string_view Find(std::string_view name) const;
};

// Who takes a response: its head once, then the bytes of its body, without framing.
struct ResponseSinks {
  FunctionRef<void(const ResponseHead&)> head;
  FunctionRef<void(std::string_view)> body;
};

class ResponseReader {
 public:
  // Of a head, of the line before a chunk, of what follows the last one.
  static constexpr size_t kMaxHeadBytes = size_t{64} << 10;

  // Takes the next bytes, in whatever pieces, and calls the sinks, whose exceptions go through:
  // nothing may follow then. Responses that say that another one comes (1xx) are left out. Returns
  // false when these are no response; error() says why, and nothing may follow. Bytes behind the
  // end stay in rest(). Memory: these bytes and a head.
  bool Feed(std::string_view bytes, const ResponseSinks& sinks);
  // The connection has ended, which ends a response without a length. False when the response is
  // not complete.
  bool End();

  // The head has come.
  bool has_head() const { return has_head_; }
  // The whole response has come.
  bool is_done() const { return state_ == State::kDone; }
  // The connection may be used again: the response allows it, and nothing is behind its end.
  bool keeps_alive() const { return is_done() && keeps_alive_ && rest_.empty(); }
  // What came behind the end of the response.
  const std::string& rest() const { return rest_; }
  // What is wrong: "bad status".
  const std::string& error() const { return error_; }

 private:
  enum class State {
    kStatus,
    kFields,
    kLength,
    kToEnd,
    kChunkSize,
    kChunk,
    kChunkEnd,
    kTrailer,
    kDone
  };

  bool IsInBody() const {
    return state_ == State::kLength || state_ == State::kToEnd || state_ == State::kChunk;
  }
  size_t TakeBody(std::string_view bytes, const ResponseSinks& sinks);
  size_t TakeLine(std::string_view bytes, const ResponseSinks& sinks);
  void Read(std::string_view line, const ResponseSinks& sinks);
  void ReadStatus(std::string_view line);
  void ReadField(std::string_view line, ResponseHead* head);
  void ReadChunkSize(std::string_view line);
  void EndHead(const ResponseSinks& sinks);
  void ReadFraming();
  void Refuse(const char* error) { error_ = error; }

  State state_ = State::kStatus;
  ResponseHead head_;
  bool has_head_ = false;
  bool is_old_ = false;  // HTTP/1.0
  bool keeps_alive_ = false;
  uint64_t num_left_ = 0;   // of the body, or of the chunk
  size_t num_scanned_ = 0;  // bytes of rest_ that have no line's end
  size_t num_of_head_ = 0;  // bytes of its lines so far
  std::string rest_;        // what has come and is not taken apart yet
  std::string error_;
};

}  // namespace wideload::http
