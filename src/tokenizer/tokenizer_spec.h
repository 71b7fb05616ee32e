// What the files of a tokenizer say, checked: the plain values that a Tokenizer is built from.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pre_tokenizer.h"

namespace wideload::tokenizer {

// How the strings of ids become text.
struct Decoder {
  bool is_byte_level = false;  // the strings are bytes in the byte alphabet
  // Otherwise: these replacements in each string (what, by what), in order.
  std::vector<std::pair<std::string, std::string>> replacements;
  bool has_byte_fallback = false;  // "<0x0A>" is a byte; a run of bytes is UTF-8 as a whole
  std::string separator;           // between two strings
  // Up to so many times this character is taken from the begin of the whole text.
  std::string stripped;
  int64_t max_stripped = 0;
};

// A token.
struct VocabularyEntry {
  std::string text;  // as tokenizer.json spells it
  bool exists = false;
  bool special = false;
  bool added = false;
};

struct TokenizerSpec {
  std::string source;
  bool is_sliced = false;  // texts are cut first as SliceEnds of tiktoken.h tells
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  BpeSpec bpe;
  Decoder decoder;
  std::vector<AddedToken> added_tokens;     // contents differ
  std::vector<VocabularyEntry> vocabulary;  // index: id
  // Of the post processor: ids around a text, where they are asked for.
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
};

// Reads the text of a tokenizer.json; `source` names it in errors. Errors: kCorrupt or kInvalid
// with file, field, found and allowed; kUnsupported for parts of the format that are not
// implemented: anything but BPE, over bytes or over characters with byte fallback.
TokenizerSpec ParseTokenizerJson(std::string_view text, const std::string& source);

}  // namespace wideload::tokenizer
