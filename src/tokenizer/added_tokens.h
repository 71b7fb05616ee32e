// Finds added tokens ("<|im_start|>") in text. Immutable; thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/regex.h"

namespace wideload::tokenizer {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool special = false;
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool single_word = false;  // not next to a word character
  bool normalized = false;   // looked for in the normalised text
};

class AddedTokenMatcher {
 public:
  struct Match {
    TextRange range;
    int32_t id;
  };

  AddedTokenMatcher() = default;
  // `tokens` have different contents, not empty.
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  // Matches in `text`, left to right, not overlapping: at each place the longest token. No match
  // takes a byte of the `plain` ranges, which are sorted and do not overlap.
  std::vector<Match> FindAll(std::string_view text, const std::vector<TextRange>& plain) const;

  bool IsEmpty() const { return tokens_.empty(); }

 private:
  int LongestAt(std::string_view text, size_t begin, size_t limit) const;

  std::vector<AddedToken> tokens_;
  std::array<bool, 256> begins_token_{};  // by first byte
  // A trie over bytes: (node << 8 | byte) -> node, and node -> index of the token that ends there.
  std::unordered_map<uint64_t, uint32_t> edges_;
  std::vector<int> token_at_node_;
};

}  // namespace wideload::tokenizer
