#include "serve/api_keys.h"

#include <string_view>

namespace wideload::serve {
namespace {

bool IsKey(std::string_view key, std::string_view given) {
  size_t differs = key.size() ^ given.size();
  for (size_t i = 0; i < key.size(); ++i) {
    const char c = i < given.size() ? given[i] : '\0';
    differs |= static_cast<unsigned char>(key[i] ^ c);
  }
  return differs == 0;
}

}  // namespace

std::optional<size_t> ApiKeys::Find(const std::string& authorization) const {
  constexpr std::string_view kScheme = "Bearer ";
  if (!authorization.starts_with(kScheme)) return std::nullopt;
  const auto given = std::string_view(authorization).substr(kScheme.size());
  std::optional<size_t> found;
  for (size_t i = 0; i < keys_.size(); ++i)
    if (IsKey(keys_[i], given)) found = i;
  return found;
}

Refusal NoKey() {
  return {.status = 401,
          .message = "a valid API key is needed: Authorization: Bearer KEY",
          .code = "invalid_api_key"};
}

}  // namespace wideload::serve
