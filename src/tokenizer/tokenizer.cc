#include "tokenizer/tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "tokenizer/unicode.h"

namespace wideload::tokenizer {
namespace {

AddedTokenMatcher MatcherOf(const TokenizerSpec& spec, bool normalized) {
  std::vector<AddedToken> tokens;
  for (AddedToken token : spec.added_tokens) {
    if (token.normalized != normalized) continue;
    if (normalized && spec.normalizer == Normalizer::kNfc) token.content = Nfc(token.content);
    tokens.push_back(std::move(token));
  }
  return AddedTokenMatcher(std::move(tokens));
}

}  // namespace

struct Tokenizer::Work {
  RegexScratch regex;
  BpeScratch bpe;
  std::vector<int32_t> ids;
};

Tokenizer Tokenizer::FromFile(const std::string& path) {
  const std::string file = IsDirectory(path) ? path + "/tokenizer.json" : path;
  return FromText(ReadFile(file), file);
}

Tokenizer Tokenizer::FromText(std::string_view text, const std::string& source) {
  return Tokenizer(ParseTokenizerJson(text, source));
}

Tokenizer::Tokenizer(TokenizerSpec spec)
    : spec_(std::move(spec)),
      bpe_(std::move(spec_.bpe)),
      raw_tokens_(MatcherOf(spec_, false)),
      normalized_tokens_(MatcherOf(spec_, true)),
      bytes_of_id_(spec_.vocabulary.size()) {
  for (size_t id = 0; id < spec_.vocabulary.size(); ++id) {
    const VocabularyEntry& entry = spec_.vocabulary[id];
    if (!entry.exists) continue;
    id_of_text_.emplace(entry.text, static_cast<int32_t>(id));
    const auto bytes = spec_.decoder == Decoder::kByteLevel ? FromByteAlphabet(entry.text)
                                                            : std::optional<std::string>();
    bytes_of_id_[id] = bytes.value_or(entry.text);
  }
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text) const {
  const TextPart part{.text = std::string(text)};
  return EncodeParts({&part, 1});
}

std::vector<int32_t> Tokenizer::EncodePlain(std::string_view text) const {
  const TextPart part{.text = std::string(text), .is_plain = true};
  return EncodeParts({&part, 1});
}

std::vector<int32_t> Tokenizer::EncodeParts(std::span<const TextPart> parts) const {
  MarkedText whole;
  for (const TextPart& part : parts) {
    const size_t begin = whole.text.size();
    whole.text += IsValidUtf8(part.text) ? part.text : WithReplacements(part.text);
    if (part.is_plain && whole.text.size() > begin)
      whole.plain.push_back({begin, whole.text.size()});
  }
  Work work;
  size_t done = 0;
  for (const auto& match : raw_tokens_.FindAll(whole.text, whole.plain)) {
    EncodeNormalized(Normalized(whole, {done, match.range.begin}), work);
    work.ids.push_back(match.id);
    done = match.range.end;
  }
  EncodeNormalized(Normalized(whole, {done, whole.text.size()}), work);
  return std::move(work.ids);
}

// The normalised `range`, cut where plain text begins or ends so that the marks stay true.
Tokenizer::MarkedText Tokenizer::Normalized(const MarkedText& text, TextRange range) const {
  MarkedText result;
  const auto append = [&](size_t begin, size_t end) {
    const std::string_view part = std::string_view(text.text).substr(begin, end - begin);
    if (spec_.normalizer == Normalizer::kNfc)
      result.text += Nfc(part);
    else
      result.text += part;
  };
  size_t done = range.begin;
  for (const TextRange& plain : text.plain) {
    const size_t begin = std::max(plain.begin, done);
    const size_t end = std::min(plain.end, range.end);
    if (begin >= end) continue;
    append(done, begin);
    const size_t marked_from = result.text.size();
    append(begin, end);
    result.plain.push_back({marked_from, result.text.size()});
    done = end;
  }
  append(done, range.end);
  return result;
}

void Tokenizer::EncodeNormalized(const MarkedText& text, Work& work) const {
  size_t done = 0;
  const std::string_view view = text.text;
  for (const auto& match : normalized_tokens_.FindAll(view, text.plain)) {
    EncodeText(view.substr(done, match.range.begin - done), work);
    work.ids.push_back(match.id);
    done = match.range.end;
  }
  EncodeText(view.substr(done), work);
}

void Tokenizer::EncodeText(std::string_view text, Work& work) const {
  PreTokenize(spec_.pre_tokenizer, text, work.regex,
              [&](std::string_view piece) { bpe_.Encode(piece, work.bpe, work.ids); });
}

std::string Tokenizer::Decode(std::span<const int32_t> ids) const {
  std::string bytes;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!HasToken(ids[i]))
      Throw(ErrorKind::kInvalid, "position {} has id {}; {} has tokens for ids in [0, {}]{}", i,
            ids[i], spec_.source, NumIds() - 1,
            ids[i] >= 0 && ids[i] < NumIds() ? ", but none for this one" : "");
    if (i > 0) bytes += Separator();
    bytes += TokenBytes(ids[i]);
  }
  return IsValidUtf8(bytes) ? bytes : WithReplacements(bytes);
}

bool Tokenizer::HasToken(int32_t id) const {
  return id >= 0 && id < NumIds() && spec_.vocabulary[static_cast<size_t>(id)].exists;
}

const VocabularyEntry& Tokenizer::Entry(int32_t id) const {
  WIDELOAD_CHECK(HasToken(id), "{} has no token {}", spec_.source, id);
  return spec_.vocabulary[static_cast<size_t>(id)];
}

const std::string& Tokenizer::TokenText(int32_t id) const { return Entry(id).text; }

bool Tokenizer::IsSpecial(int32_t id) const { return Entry(id).special; }

std::optional<int32_t> Tokenizer::TokenId(std::string_view token_text) const {
  const auto found = id_of_text_.find(std::string(token_text));
  if (found == id_of_text_.end()) return std::nullopt;
  return found->second;
}

std::string_view Tokenizer::TokenBytes(int32_t id) const {
  WIDELOAD_CHECK(HasToken(id), "{} has no token {}", spec_.source, id);
  return bytes_of_id_[static_cast<size_t>(id)];
}

}  // namespace wideload::tokenizer
