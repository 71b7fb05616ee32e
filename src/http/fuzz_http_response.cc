// The bytes of a connection, whole and in pieces: the first byte says how long these are. Both give
// the same response.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "http/response_reader.h"

namespace {

using wideload::http::ResponseHead;

struct Response {
  int status = -1;
  size_t num_fields = 0;
  std::string body;
  bool is_right = true;
  bool is_complete = false;
  bool operator==(const Response&) const = default;
};

Response Read(std::string_view text, size_t piece) {
  Response response;
  wideload::http::ResponseReader reader;
  const auto head = [&](const ResponseHead& told) {
    WIDELOAD_CHECK(response.status < 0, "a second head");
    response.status = told.status;
    response.num_fields = told.fields.size();
  };
  const auto body = [&](std::string_view bytes) {
    WIDELOAD_CHECK(response.status >= 0, "a body before its head");
    response.body += bytes;
  };
  for (size_t at = 0; at < text.size() && response.is_right; at += piece)
    response.is_right = reader.Feed(text.substr(at, piece), {head, body});
  WIDELOAD_CHECK(response.is_right == reader.error().empty(), "'{}'", reader.error());
  WIDELOAD_CHECK(response.body.size() + reader.rest().size() <= text.size(), "bytes were made");
  response.is_complete = response.is_right && reader.End();
  return response;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (text.empty()) return 0;
  const Response whole = Read(text, text.size());
  const Response pieces = Read(text, data[0] % 64 + 1U);
  WIDELOAD_CHECK(whole == pieces, "pieces of {}", data[0] % 64 + 1);
  return 0;
}
