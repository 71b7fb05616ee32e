// Text <-> token ids: the byte-level BPE of a tokenizer.json, the same ids as the Hugging Face
// tokenizers library. Immutable after construction; every const function may be called by many
// threads at once.
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
  // `path` is a tokenizer.json or a folder with one. Errors: as ParseTokenizerJson; kNotFound, kIo.
  static Tokenizer FromFile(const std::string& path);
  // `text` is the content of a tokenizer.json, `source` its name in errors.
  static Tokenizer FromText(std::string_view text, const std::string& source);

  // The ids of `text`. Added tokens inside it are recognised; none are added. Each maximal
  // ill-formed part of its UTF-8 counts as U+FFFD. Errors: kResource when a regular expression of
  // the tokenizer exceeds its bounds on this text.
  std::vector<int32_t> Encode(std::string_view text) const;
  // The same without looking for added tokens.
  std::vector<int32_t> EncodePlain(std::string_view text) const;
  // The ids of the parts joined, but no added token takes a byte of a plain part. Each part is
  // normalised by itself.
  std::vector<int32_t> EncodeParts(std::span<const TextPart> parts) const;

  // The text of `ids`, special tokens included; bytes that are no UTF-8 become U+FFFD. Errors:
  // kInvalid, naming position, id and the allowed ones, for an id without a token.
  std::string Decode(std::span<const int32_t> ids) const;

  // One more than the largest id. Ids below it may have no token.
  int32_t NumIds() const { return static_cast<int32_t>(spec_.vocabulary.size()); }
  bool HasToken(int32_t id) const;
  // The token as tokenizer.json spells it (in the byte alphabet). The id must have a token.
  const std::string& TokenText(int32_t id) const;
  std::optional<int32_t> TokenId(std::string_view token_text) const;
  // An added token that is marked special. The id must have a token.
  bool IsSpecial(int32_t id) const;

  // What Decode appends for `id`, which must have a token: bytes, not always whole characters.
  std::string_view TokenBytes(int32_t id) const;
  // What stands between two tokens when decoding; empty for every byte-level decoder.
  std::string_view Separator() const { return spec_.decoder == Decoder::kSpaced ? " " : ""; }

  // The ids that the file's post processor puts before and after a text when special tokens are to
  // be added. Encode does not add them.
  const std::vector<int32_t>& PrefixIds() const { return spec_.prefix; }
  const std::vector<int32_t>& SuffixIds() const { return spec_.suffix; }

 private:
  struct Work;
  struct MarkedText {
    std::string text;
    std::vector<TextRange> plain;  // where added tokens are not looked for
  };

  explicit Tokenizer(TokenizerSpec spec);
  MarkedText Normalized(const MarkedText& text, TextRange range) const;
  void EncodeNormalized(const MarkedText& text, Work& work) const;
  void EncodeText(std::string_view text, Work& work) const;
  const VocabularyEntry& Entry(int32_t id) const;

  TokenizerSpec spec_;
  Bpe bpe_;
  AddedTokenMatcher raw_tokens_;         // looked for in the text as it is
  AddedTokenMatcher normalized_tokens_;  // looked for in the normalised text between those
  std::vector<std::string> bytes_of_id_;
  std::unordered_map<std::string, int32_t> id_of_text_;
};

}  // namespace wideload::tokenizer
