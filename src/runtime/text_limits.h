// How large the texts of a request may be, asked before work goes into them. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "tokenizer/tokenizer.h"

namespace wideload::runtime {

// Stop strings of one request.
inline constexpr size_t kMaxStopStrings = 64;
inline constexpr size_t kMaxStopBytes = 4096;  // of each

// What is wrong with the texts at which generation is to end, after their name: "is empty; ...",
// too long or too many. "" when nothing is.
std::string InvalidStop(std::span<const std::string> stop);

// No text of more bytes than this becomes at most `num_tokens` tokens: each stands for no more
// bytes than the longest of the vocabulary. A tokenizer that drops blanks may drop some in
// addition.
int64_t MaxTextBytes(const tokenizer::Tokenizer& tokenizer, int64_t num_tokens);

}  // namespace wideload::runtime
