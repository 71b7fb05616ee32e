// What a tokenizer.json says, checked: the plain values that a Tokenizer is built from.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/pre_tokenizer.h"

namespace wideload::tokenizer {

enum class Normalizer { kNone, kNfc };

// How the strings of ids become text.
enum class Decoder {
  kByteLevel,  // bytes of the byte alphabet, joined
  kJoined,     // the tokens as they are, joined (an empty Sequence)
  kSpaced,     // the tokens as they are, with a space between (no decoder)
};

struct VocabularyEntry {
  std::string text;  // as tokenizer.json spells it
  bool exists = false;
  bool special = false;
  bool added = false;
};

struct TokenizerSpec {
  std::string source;
  Normalizer normalizer = Normalizer::kNone;
  PreTokenizer pre_tokenizer;
  BpeSpec bpe;
  Decoder decoder = Decoder::kSpaced;
  std::vector<AddedToken> added_tokens;     // contents differ
  std::vector<VocabularyEntry> vocabulary;  // index: id
  std::vector<int32_t>
      prefix;  // of the post processor: ids around a text, where they are asked for
  std::vector<int32_t> suffix;
};

// Reads the text of a tokenizer.json; `source` names it in errors. Errors: kCorrupt or kInvalid
// with file, field, found and allowed; kUnsupported for parts of the format that are not
// implemented: anything but byte-level BPE as Qwen, DeepSeek and Llama 3 use it.
TokenizerSpec ParseTokenizerJson(std::string_view text, const std::string& source);

}  // namespace wideload::tokenizer
