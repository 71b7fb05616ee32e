#include "serve/api_keys.h"

#include <algorithm>
#include <boost/beast/core/string.hpp>
#include <string_view>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"

namespace wideload::serve {
namespace {

constexpr size_t kGuessableBytes = 8;
constexpr size_t kMaxKeyFileBytes = 1 << 20;

}  // namespace

ApiKeys ApiKeys::FromFile(const std::string& path) {
  ApiKeys keys;
  keys.salt_ = RandomBytes();
  std::string text = ReadFile(path, kMaxKeyFileBytes);
  for (size_t begin = 0, line = 1; begin < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view key(text.data() + begin, end - begin);
    begin = end + 1;
    while (!key.empty() && (key.back() == '\r' || key.back() == ' ')) key.remove_suffix(1);
    if (key.empty() || key.front() == '#') continue;
    if (key.size() < kGuessableBytes)
      LogWarn("{}: the key of line {} has {} characters: it can be guessed", path, line,
              key.size());
    keys.hashes_.push_back(SaltedHash(keys.salt_, key));
  }
  Erase(text);
  if (keys.empty()) Throw(ErrorKind::kInvalid, "{}: there is no key in it", path);
  return keys;
}

std::optional<size_t> ApiKeys::Find(const std::string& authorization) const {
  constexpr std::string_view kScheme = "Bearer ";
  // The name of a scheme is the same in capitals. Source: RFC 9110, 11.1.
  if (!boost::beast::iequals(std::string_view(authorization).substr(0, kScheme.size()), kScheme))
    return std::nullopt;
  const Hash given = SaltedHash(salt_, std::string_view(authorization).substr(kScheme.size()));
  std::optional<size_t> found;
  for (size_t i = 0; i < hashes_.size(); ++i)
    if (IsEqual(hashes_[i], given)) found = i;
  return found;
}

Refusal NoKey() {
  return {.status = 401,
          .message = "a valid API key is needed: Authorization: Bearer KEY",
          .code = "invalid_api_key"};
}

}  // namespace wideload::serve
