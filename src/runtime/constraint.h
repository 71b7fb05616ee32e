// Keeps what a sequence generates within its request's grammar. On the engine's thread: ranks are
// told which tokens may come next, and need to know no grammar.
#pragma once

#include <cstdint>

#include "grammar/token_grammar.h"
#include "runtime/scheduler.h"

namespace wideload::runtime {

// Before ranks sample, which may compute meanwhile: notes the tokens that may come next, in
// `sequence.allowed`. Of a request without a grammar nothing.
void NoteAllowed(Sequence& sequence, int64_t vocab_size);

// The tokens that may come next where `matcher` stands, ends of sequences included.
grammar::TokenBits AllowedTokens(grammar::TokenMatcher& matcher, const Request& request,
                                 int64_t vocab_size);

// What a token means for a grammar's text.
enum class TextState {
  kGoesOn,    // more may follow
  kComplete,  // nothing can follow
  kBroken,    // the token is not allowed here
};
// Takes a token that was sampled and ends nothing. kGoesOn without a grammar.
TextState TakeToken(Sequence& sequence, int32_t token);

}  // namespace wideload::runtime
