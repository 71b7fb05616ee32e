// Reads tiktoken.model, the vocabulary of Kimi K2, by the rules of Moonshot AI's tokenizer. Pure
// functions, thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "tokenizer/tokenizer_spec.h"

namespace wideload::tokenizer {

// `model` is the text of a tiktoken.model: on each line a token in base64 and its rank, which is
// its id. `config` is the tokenizer_config.json: its added_tokens_decoder names some of the 256 ids
// behind the vocabulary, all of them added tokens; the others are "<|reserved_token_ID|>". `source`
// names the first in errors. Errors: kCorrupt, kInvalid or kUnsupported with file, line or field,
// found and allowed. Source: moonshotai/Kimi-K2-Instruct, tokenization_kimi.py.
TokenizerSpec ParseTiktoken(std::string_view model, const std::string& source,
                            const JsonFields& config);

// Where that tokenizer cuts a text before it looks for anything: after 400,000 characters, and
// after 25,000 characters in a row that are all white space or all not. `text` is well-formed
// UTF-8. Returns the ends of the slices, in bytes; the last one is the end of the text.
std::vector<size_t> SliceEnds(std::string_view text);

}  // namespace wideload::tokenizer
