#include "runtime/text_limits.h"

#include <fmt/format.h>

#include <algorithm>

namespace wideload::runtime {

std::string InvalidStop(std::span<const std::string> stop) {
  if (stop.size() > kMaxStopStrings)
    return fmt::format("is given {} times; at most {} are allowed", stop.size(), kMaxStopStrings);
  for (const std::string& text : stop) {
    if (text.empty()) return "is empty; it must have at least one character";
    if (text.size() > kMaxStopBytes)
      return fmt::format("has {} bytes; at most {} are allowed", text.size(), kMaxStopBytes);
  }
  return "";
}

int64_t MaxTextBytes(const tokenizer::Tokenizer& tokenizer, int64_t num_tokens) {
  constexpr int64_t kDroppedBlanks = int64_t{64} << 10;
  size_t longest = 1;
  for (int32_t id = 0; id < tokenizer.NumIds(); ++id)
    if (tokenizer.HasToken(id)) longest = std::max(longest, tokenizer.TokenBytes(id).size());
  return num_tokens * static_cast<int64_t>(longest) + kDroppedBlanks;
}

}  // namespace wideload::runtime
