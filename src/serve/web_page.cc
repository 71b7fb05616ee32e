#include "serve/web_page.h"

#include <fmt/format.h>

#include <random>

namespace wideload::serve {
namespace {

// What pages write where the number of the answer belongs.
constexpr std::string_view kNoncePlace = "NONCE_OF_THIS_ANSWER";

std::string DrawNonce() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", device(), device(), device(), device());
}

}  // namespace

HttpResponse WebPage(std::string_view text) {
  const std::string nonce = DrawNonce();
  HttpResponse response{.content_type = "text/html; charset=utf-8", .body = std::string(text)};
  for (size_t at = 0; (at = response.body.find(kNoncePlace, at)) != std::string::npos;)
    response.body.replace(at, kNoncePlace.size(), nonce);
  response.headers = {
      {"Content-Security-Policy",
       fmt::format("default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; "
                   "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
                   "frame-ancestors 'none'",
                   nonce)},
      {"X-Content-Type-Options", "nosniff"},
      {"Referrer-Policy", "no-referrer"}};
  return response;
}

}  // namespace wideload::serve
