// Finds added tokens ("<|im_start|>") in text. Immutable; thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tokenizer/regex.h"

namespace wideload::tokenizer {

// A token that is found in the text before it is cut.
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
  // Where it is.
  struct Match {
    TextRange range;
    int32_t id;
  };

  AddedTokenMatcher() = default;
  // `tokens` have different contents, not empty.
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  // Matches in `text`, left to right, not overlapping: at each place the longest token. No match
  // takes a byte of the `plain` ranges, which are sorted and do not overlap. Time linear in the
  // text, whatever the tokens.
  std::vector<Match> FindAll(std::string_view text, const std::vector<TextRange>& plain) const;

 private:
  struct Candidate {
    size_t begin;
    size_t token;  // index: the longest one that begins there
  };

  void FindIn(std::string_view text, TextRange stretch, std::vector<Match>& matches) const;
  std::vector<Candidate> CandidatesIn(std::string_view text, TextRange stretch) const;
  void SetFallbacks(const std::vector<std::pair<uint32_t, uint8_t>>& way_to);
  uint32_t Next(uint32_t node, uint8_t byte) const;

  std::vector<AddedToken> tokens_;
  // The automaton of Aho and Corasick over the tokens' bytes from last to first; node 0 is its
  // root. Read from the end of a text it knows the longest token that begins at each place.
  std::unordered_map<uint64_t, uint32_t> edges_;  // (node << 8 | byte) -> node
  std::array<bool, 256> leaves_root_{};           // by byte
  std::vector<uint32_t> fallback_of_;             // the node of the longest end of a node's bytes
  std::vector<int32_t> token_at_;  // index of the longest token whose bytes a node ends with, or -1
};

}  // namespace wideload::tokenizer
