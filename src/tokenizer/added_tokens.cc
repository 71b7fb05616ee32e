#include "tokenizer/added_tokens.h"

#include <algorithm>

#include "tokenizer/unicode.h"

namespace wideload::tokenizer {
namespace {

// Begin of the character that ends at `end` > 0.
size_t CharacterBefore(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && (text[begin] & 0xC0) == 0x80) --begin;
  return begin;
}

bool StandsAlone(std::string_view text, TextRange range) {
  const bool word_before =
      range.begin > 0 &&
      IsWordCharacter(Utf8At(text, CharacterBefore(text, range.begin)).code_point);
  const bool word_after =
      range.end < text.size() && IsWordCharacter(Utf8At(text, range.end).code_point);
  return !word_before && !word_after;
}

// `begin`, moved left over white space, not beyond `limit`.
size_t WithSpaceBefore(std::string_view text, size_t begin, size_t limit) {
  while (begin > limit) {
    const size_t previous = CharacterBefore(text, begin);
    if (previous < limit || !IsWhiteSpace(Utf8At(text, previous).code_point)) break;
    begin = previous;
  }
  return begin;
}

size_t WithSpaceAfter(std::string_view text, size_t end, size_t limit) {
  while (end < limit) {
    const Utf8Unit unit = Utf8At(text, end);
    if (!IsWhiteSpace(unit.code_point)) break;
    end += unit.length;
  }
  return end;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)), token_at_node_(1, -1) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    begins_token_[static_cast<uint8_t>(tokens_[i].content[0])] = true;
    uint32_t node = 0;
    for (const char c : tokens_[i].content) {
      const uint64_t key = uint64_t{node} << 8 | static_cast<uint8_t>(c);
      const auto fresh = static_cast<uint32_t>(token_at_node_.size());
      const auto [edge, is_new] = edges_.try_emplace(key, fresh);
      if (is_new) token_at_node_.push_back(-1);
      node = edge->second;
    }
    token_at_node_[node] = static_cast<int>(i);
  }
}

// Index of the longest token that begins at `begin` and ends by `limit`, or -1.
int AddedTokenMatcher::LongestAt(std::string_view text, size_t begin, size_t limit) const {
  int longest = -1;
  if (!begins_token_[static_cast<uint8_t>(text[begin])]) return longest;
  uint32_t node = 0;
  for (size_t i = begin; i < limit; ++i) {
    const auto edge = edges_.find(uint64_t{node} << 8 | static_cast<uint8_t>(text[i]));
    if (edge == edges_.end()) break;
    node = edge->second;
    if (token_at_node_[node] >= 0) longest = token_at_node_[node];
  }
  return longest;
}

std::vector<AddedTokenMatcher::Match> AddedTokenMatcher::FindAll(
    std::string_view text, const std::vector<TextRange>& plain) const {
  std::vector<Match> matches;
  if (tokens_.empty()) return matches;
  auto next_plain = plain.begin();
  size_t open_begin = 0;   // end of the plain range before `i`
  size_t taken_until = 0;  // end of the match before `i`
  for (size_t i = 0; i < text.size();) {
    if (next_plain != plain.end() && i >= next_plain->begin) {
      i = open_begin = std::max(i, next_plain->end);
      ++next_plain;
      continue;
    }
    const size_t limit = next_plain == plain.end() ? text.size() : next_plain->begin;
    const int index = LongestAt(text, i, limit);
    if (index < 0) {
      ++i;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    TextRange range{i, i + token.content.size()};
    i = range.end;
    if (token.single_word && !StandsAlone(text, range)) continue;
    if (token.lstrip)
      range.begin = WithSpaceBefore(text, range.begin, std::max(taken_until, open_begin));
    if (token.rstrip) i = range.end = WithSpaceAfter(text, range.end, limit);
    matches.push_back({range, token.id});
    taken_until = range.end;
  }
  return matches;
}

}  // namespace wideload::tokenizer
