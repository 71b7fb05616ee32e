// Text <-> token ids: the BPE of a tokenizer.json or a tiktoken.model, the same ids as the Hugging
// Face tokenizers library and tiktoken. Immutable after construction; every const function may be
// called by many threads at once.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/tokenizer_spec.h"

namespace wideload::tokenizer {

// A stretch of text and whether added tokens are looked for in it. What a user wrote is plain: his
// "<|im_end|>" stays text.
struct TextPart {
  std::string text;
  bool is_plain = false;
};

class Tokenizer {
 public:
  // `path` is a tokenizer.json, or a tiktoken.model with a tokenizer_config.json beside it, or a
  // folder with one of them (of both the first), whose tokenizer_config.json counts, too. Errors:
  // as ParseTokenizerJson, ParseTiktoken and ApplyTokenizerConfig; kNotFound, kIo.
  static Tokenizer FromFile(const std::string& path);
  // Whether `folder` has a file that FromFile reads.
  static bool IsIn(const std::string& folder);
  // `text` is the content of a tokenizer.json, `source` its name in errors.
  static Tokenizer FromText(std::string_view text, const std::string& source);

  // The ids of `text`. Added tokens inside it are recognised; none are added. Each maximal
  // ill-formed part of its UTF-8 counts as U+FFFD. Errors: kResource when a regular expression of
  // the tokenizer exceeds its bounds on this text.
  std::vector<int32_t> Encode(std::string_view text) const;
  // The same without looking for added tokens.
  std::vector<int32_t> EncodePlain(std::string_view text) const;
  // The ids of the parts joined, but no added token takes a byte of a plain part.
  // NFC and replacements work on plain and other stretches one by one.
  std::vector<int32_t> EncodeParts(std::span<const TextPart> parts) const;

  // PrefixIds, the ids of `text`, SuffixIds.
  std::vector<int32_t> EncodeWithSpecial(std::string_view text) const;

  // The text of `ids`, with or without special tokens; bytes that are no UTF-8 become U+FFFD. An id
  // without a token gives nothing: models have more ids than tokenizers.
  std::string Decode(std::span<const int32_t> ids, bool skip_special = false) const;

  // One more than the largest id. Ids below it may have no token.
  int32_t NumIds() const { return static_cast<int32_t>(spec_.vocabulary.size()); }
  // Whether the vocabulary has a token of this id.
  bool HasToken(int32_t id) const;
  // The id of a token by its text; nothing if there is none.
  std::optional<int32_t> TokenId(std::string_view token_text) const;

  // The next three take any id; without a token it is empty text, no bytes and not special.
  // The token as the file spells it (in the byte alphabet).
  std::string_view TokenText(int32_t id) const;
  // What the token adds to a text: bytes, not always whole characters.
  std::string_view TokenBytes(int32_t id) const;
  // An added token that is marked special.
  bool IsSpecial(int32_t id) const;

  // The ids that the file's post processor puts before and after a text when special tokens are to
  // be added. Only EncodeWithSpecial adds them.
  const std::vector<int32_t>& PrefixIds() const { return spec_.prefix; }
  const std::vector<int32_t>& SuffixIds() const { return spec_.suffix; }

  // How tokens become text; StreamingDetokenizer does it.
  const Decoder& decoder() const { return spec_.decoder; }
  // A token of byte fallback ("<0x0A>"), where the decoder has it.
  bool IsByteToken(int32_t id) const;

 private:
  struct Work;

  explicit Tokenizer(TokenizerSpec spec);
  void EncodeSlice(const MarkedText& text, Work& work) const;
  void EncodeBetween(MarkedText text, bool is_first, Work& work) const;
  void EncodeText(std::string_view text, bool is_first, Work& work) const;
  void SetBytes(int32_t token_id, const std::string& text);

  TokenizerSpec spec_;
  Bpe bpe_;
  AddedTokenMatcher raw_tokens_;         // looked for in the text as it is
  AddedTokenMatcher normalized_tokens_;  // looked for in the normalised text between those
  std::vector<std::string> bytes_of_id_;
  std::vector<bool> is_byte_;  // by id
  std::unordered_map<std::string, int32_t> id_of_text_;
};

}  // namespace wideload::tokenizer
