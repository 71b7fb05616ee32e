#include "runtime/constraint.h"

#include <algorithm>

namespace wideload::runtime {
namespace {

void SetAllowed(grammar::TokenBits& bits, int32_t token, bool is_allowed) {
  const uint64_t bit = uint64_t{1} << (static_cast<uint64_t>(token) % 64);
  uint64_t& word = bits[static_cast<size_t>(token) / 64];
  word = is_allowed ? word | bit : word & ~bit;
}

bool IsNone(const grammar::TokenBits& bits) {
  return std::ranges::all_of(bits, [](uint64_t word) { return word == 0; });
}

}  // namespace

void NoteAllowed(Sequence& sequence, int64_t vocab_size) {
  const Request& request = sequence.request;
  if (request.grammar == nullptr) {
    if (!request.first_allowed.empty()) sequence.allowed = request.first_allowed;
    return;
  }
  if (!sequence.matcher) sequence.matcher.emplace(request.grammar);
  sequence.allowed = AllowedTokens(*sequence.matcher, request, vocab_size);
}

grammar::TokenBits AllowedTokens(grammar::TokenMatcher& matcher, const Request& request,
                                 int64_t vocab_size) {
  const auto found = matcher.Allowed();
  grammar::TokenBits allowed = *found;
  for (const int32_t id : request.eos_ids)
    if (id >= 0 && id < vocab_size) SetAllowed(allowed, id, matcher.IsEnd());
  // Somebody ends at a token without which the text cannot go on.
  return IsNone(allowed) ? *found : allowed;
}

TextState TakeToken(Sequence& sequence, int32_t token) {
  if (!sequence.matcher) return TextState::kGoesOn;
  if (!sequence.matcher->Advance(token)) return TextState::kBroken;
  return sequence.matcher->GoesOn() ? TextState::kGoesOn : TextState::kComplete;
}

}  // namespace wideload::runtime
