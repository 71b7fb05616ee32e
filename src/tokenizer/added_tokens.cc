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
    : tokens_(std::move(tokens)), fallback_of_(1, 0), token_at_(1, -1) {
  std::vector<std::pair<uint32_t, uint8_t>> way_to(1);  // of each node: its parent and the byte
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& content = tokens_[i].content;
    uint32_t node = 0;
    for (auto c = content.rbegin(); c != content.rend(); ++c) {
      const auto byte = static_cast<uint8_t>(*c);
      const auto fresh = static_cast<uint32_t>(token_at_.size());
      const auto [edge, is_new] = edges_.try_emplace(uint64_t{node} << 8 | byte, fresh);
      if (is_new) {
        token_at_.push_back(-1);
        way_to.emplace_back(node, byte);
      }
      if (node == 0) leaves_root_[byte] = true;
      node = edge->second;
    }
    token_at_[node] = static_cast<int32_t>(i);
  }
  SetFallbacks(way_to);
}

// Level by level: what a node falls back to is nearer to the root.
void AddedTokenMatcher::SetFallbacks(const std::vector<std::pair<uint32_t, uint8_t>>& way_to) {
  std::vector<uint32_t> depth(way_to.size(), 0);  // a parent's index is lower than its children's
  std::vector<uint32_t> by_depth(way_to.size());
  for (uint32_t node = 0; node < way_to.size(); ++node) {
    if (node > 0) depth[node] = depth[way_to[node].first] + 1;
    by_depth[node] = node;
  }
  std::stable_sort(by_depth.begin(), by_depth.end(),
                   [&](uint32_t a, uint32_t b) { return depth[a] < depth[b]; });
  fallback_of_.assign(way_to.size(), 0);
  for (const uint32_t node : by_depth) {
    const auto [parent, byte] = way_to[node];
    if (depth[node] > 1) fallback_of_[node] = Next(fallback_of_[parent], byte);
    if (token_at_[node] < 0) token_at_[node] = token_at_[fallback_of_[node]];
  }
}

uint32_t AddedTokenMatcher::Next(uint32_t node, uint8_t byte) const {
  while (true) {
    if (node == 0 && !leaves_root_[byte]) return 0;
    const auto edge = edges_.find(uint64_t{node} << 8 | byte);
    if (edge != edges_.end()) return edge->second;
    node = fallback_of_[node];
  }
}

// Last to first.
std::vector<AddedTokenMatcher::Candidate> AddedTokenMatcher::CandidatesIn(std::string_view text,
                                                                          TextRange stretch) const {
  std::vector<Candidate> candidates;
  uint32_t node = 0;
  for (size_t i = stretch.end; i-- > stretch.begin;) {
    node = Next(node, static_cast<uint8_t>(text[i]));
    if (token_at_[node] >= 0) candidates.push_back({i, static_cast<size_t>(token_at_[node])});
  }
  return candidates;
}

std::vector<AddedTokenMatcher::Match> AddedTokenMatcher::FindAll(
    std::string_view text, const std::vector<TextRange>& plain) const {
  std::vector<Match> matches;
  if (tokens_.empty()) return matches;
  size_t done = 0;
  for (const TextRange& range : plain) {
    FindIn(text, {done, range.begin}, matches);
    done = range.end;
  }
  FindIn(text, {done, text.size()}, matches);
  return matches;
}

void AddedTokenMatcher::FindIn(std::string_view text, TextRange stretch,
                               std::vector<Match>& matches) const {
  const std::vector<Candidate> candidates = CandidatesIn(text, stretch);
  size_t taken_until = stretch.begin;  // by the matches so far
  size_t next = stretch.begin;         // where the next one may begin
  for (auto candidate = candidates.rbegin(); candidate != candidates.rend(); ++candidate) {
    if (candidate->begin < next) continue;
    const AddedToken& token = tokens_[candidate->token];
    TextRange range{candidate->begin, candidate->begin + token.content.size()};
    next = range.end;
    if (token.single_word && !StandsAlone(text, range)) continue;
    if (token.lstrip) range.begin = WithSpaceBefore(text, range.begin, taken_until);
    if (token.rstrip) next = range.end = WithSpaceAfter(text, range.end, stretch.end);
    matches.push_back({range, token.id});
    taken_until = range.end;
  }
}

}  // namespace wideload::tokenizer
