// What a client is told whose request is not carried out: OpenAI's error envelope. A plain value.
#pragma once

#include <string>
#include <string_view>

#include "serve/http_server.h"

namespace wideload::serve {

struct Refusal {
  int status = 400;
  std::string message;
  std::string param = "";  // the field; "": none
  std::string code = "";   // for programs; "": none
  int retry_after_s = 0;   // 0: nothing is said
};

// At most so many of the text's first bytes, without a part of a character at the end: for messages
// that show what was found.
std::string_view BeginOf(std::string_view text, size_t max_bytes);

// {"error": {message, type, param, code}}; type follows the status.
std::string RefusalJson(const Refusal& refusal);
// The same as an answer with its status.
HttpResponse RefusalResponse(const Refusal& refusal);
// The same as the last event of a stream that has begun, in the form of /v1/responses or the
// others'.
std::string ErrorEvent(const Refusal& refusal, bool is_responses);

// What a client is told while the server ends.
Refusal ShuttingDown();

}  // namespace wideload::serve
