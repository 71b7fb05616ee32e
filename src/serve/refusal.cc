#include "serve/refusal.h"

#include <fmt/format.h>

#include "base/json.h"

namespace wideload::serve {
namespace {

const char* TypeOf(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    case 503:
      return "service_unavailable_error";
    default:
      return status < 500 ? "invalid_request_error" : "internal_server_error";
  }
}

Json TextOrNull(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

}  // namespace

std::string_view BeginOf(std::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  while (max_bytes > 0 && (static_cast<unsigned char>(text[max_bytes]) & 0xC0) == 0x80) --max_bytes;
  return text.substr(0, max_bytes);
}

std::string RefusalJson(const Refusal& refusal) {
  return DumpJson({{"error",
                    {{"message", refusal.message},
                     {"type", TypeOf(refusal.status)},
                     {"param", TextOrNull(refusal.param)},
                     {"code", TextOrNull(refusal.code)}}}});
}

HttpResponse RefusalResponse(const Refusal& refusal) {
  HttpResponse response{.status = refusal.status, .body = RefusalJson(refusal)};
  if (refusal.retry_after_s > 0)
    response.headers.emplace_back("Retry-After", std::to_string(refusal.retry_after_s));
  if (refusal.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

std::string ErrorEvent(const Refusal& refusal, bool is_responses) {
  if (!is_responses) return fmt::format("data: {}\n\n", RefusalJson(refusal));
  return fmt::format(
      "event: error\ndata: {}\n\n",
      DumpJson({{"type", "error"}, {"code", refusal.code}, {"message", refusal.message}}));
}

Refusal ShuttingDown() {
  return {.status = 503,
          .message = "the server is shutting down",
          .code = "shutting_down",
          .retry_after_s = 5};
}

}  // namespace wideload::serve
