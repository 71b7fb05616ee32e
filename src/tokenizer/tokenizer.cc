#include "tokenizer/tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "tokenizer/detokenizer.h"
#include "tokenizer/spec_readers.h"
#include "tokenizer/tiktoken.h"
#include "tokenizer/unicode.h"

namespace wideload::tokenizer {
namespace {

// Tokens that are looked for in the normalised text are normalised themselves. The library knows
// special tokens by their contents before that: one that the normalizer changes counts as none.
// Source: huggingface/tokenizers 0.23, added_vocabulary.rs.
TokenizerSpec WithNormalizedTokens(TokenizerSpec spec) {
  RegexScratch scratch;
  for (AddedToken& token : spec.added_tokens) {
    if (!token.normalized) continue;
    std::string content = Normalized(spec.normalizer, {.text = token.content}, scratch).text;
    if (content == token.content) continue;
    token.content = std::move(content);
    spec.vocabulary[static_cast<size_t>(token.id)].special = false;
  }
  return spec;
}

AddedTokenMatcher MatcherOf(const std::vector<AddedToken>& tokens, bool normalized) {
  std::vector<AddedToken> wanted;
  for (const AddedToken& token : tokens)
    if (token.normalized == normalized && !token.content.empty()) wanted.push_back(token);
  return AddedTokenMatcher(std::move(wanted));
}

// Cuts a marked text into stretches, left to right, in time linear in all of it.
class StretchCutter {
 public:
  explicit StretchCutter(const MarkedText& text) : text_(text) {}

  // `range` begins where the range before it ended, or later.
  MarkedText Cut(TextRange range) {
    MarkedText result{.text = text_.text.substr(range.begin, range.end - range.begin), .plain = {}};
    const std::vector<TextRange>& plain = text_.plain;
    while (next_ < plain.size() && plain[next_].end <= range.begin) ++next_;
    for (size_t i = next_; i < plain.size() && plain[i].begin < range.end; ++i)
      result.plain.push_back({std::max(plain[i].begin, range.begin) - range.begin,
                              std::min(plain[i].end, range.end) - range.begin});
    return result;
  }

 private:
  const MarkedText& text_;
  size_t next_ = 0;  // the first plain range that does not end before the next stretch
};

std::optional<uint8_t> ByteOfFallbackToken(std::string_view text) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return std::nullopt;
  const int high = digit(text[3]);
  const int low = digit(text[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<uint8_t>(high << 4 | low);
}

constexpr std::string_view kJsonFile = "tokenizer.json";
constexpr std::string_view kTiktokenFile = "tiktoken.model";
constexpr std::string_view kConfigFile = "tokenizer_config.json";

// `folder` ends with a slash, or is empty for the working folder.
TokenizerSpec ReadTiktoken(const std::string& path, const std::string& folder) {
  const std::string config_file = folder + std::string(kConfigFile);
  const Json config = ReadJsonFile(config_file);
  return ParseTiktoken(ReadFile(path), path, JsonFields(config, config_file));
}

void ReplaceAll(std::string& text, const std::string& what, const std::string& by) {
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size()))
    text.replace(at, what.size(), by);
}

}  // namespace

struct Tokenizer::Work {
  RegexScratch regex;
  BpeScratch bpe;
  std::vector<int32_t> ids;
};

Tokenizer Tokenizer::FromFile(const std::string& path) {
  if (!IsDirectory(path)) {
    if (!path.ends_with(kTiktokenFile)) return FromText(ReadFile(path), path);
    return Tokenizer(ReadTiktoken(path, path.substr(0, path.size() - kTiktokenFile.size())));
  }
  const std::string folder = path + "/";
  const std::string file = folder + std::string(kJsonFile);
  const std::string tiktoken = folder + std::string(kTiktokenFile);
  if (!FileExists(file) && FileExists(tiktoken)) return Tokenizer(ReadTiktoken(tiktoken, folder));
  TokenizerSpec spec = ParseTokenizerJson(ReadFile(file), file);
  const std::string config_file = folder + std::string(kConfigFile);
  if (FileExists(config_file)) {
    const Json config = ReadJsonFile(config_file);
    ApplyTokenizerConfig(JsonFields(config, config_file), spec);
  }
  return Tokenizer(std::move(spec));
}

bool Tokenizer::IsIn(const std::string& folder) {
  return FileExists(folder + "/" + std::string(kJsonFile)) ||
         FileExists(folder + "/" + std::string(kTiktokenFile));
}

Tokenizer Tokenizer::FromText(std::string_view text, const std::string& source) {
  return Tokenizer(ParseTokenizerJson(text, source));
}

Tokenizer::Tokenizer(TokenizerSpec spec)
    : spec_(WithNormalizedTokens(std::move(spec))),
      bpe_(std::move(spec_.bpe)),
      raw_tokens_(MatcherOf(spec_.added_tokens, false)),
      normalized_tokens_(MatcherOf(spec_.added_tokens, true)),
      bytes_of_id_(spec_.vocabulary.size()),
      is_byte_(spec_.vocabulary.size()) {
  for (size_t id = 0; id < spec_.vocabulary.size(); ++id) {
    if (!spec_.vocabulary[id].exists) continue;
    id_of_text_.emplace(spec_.vocabulary[id].text, static_cast<int32_t>(id));
    SetBytes(static_cast<int32_t>(id), spec_.vocabulary[id].text);
  }
  for (const AddedToken& token : spec_.added_tokens) SetBytes(token.id, token.content);
}

void Tokenizer::SetBytes(int32_t token_id, const std::string& text) {
  const auto id = static_cast<size_t>(token_id);
  std::string bytes = text;
  if (spec_.decoder.is_byte_level) bytes = FromByteAlphabet(bytes).value_or(bytes);
  for (const auto& [what, by] : spec_.decoder.replacements) ReplaceAll(bytes, what, by);
  if (spec_.decoder.has_byte_fallback) {
    if (const auto byte = ByteOfFallbackToken(bytes)) {
      is_byte_[id] = true;
      bytes.assign(1, static_cast<char>(*byte));
    }
  }
  bytes_of_id_[id] = std::move(bytes);
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text) const {
  const TextPart part{.text = std::string(text)};
  return EncodeParts({&part, 1});
}

std::vector<int32_t> Tokenizer::EncodePlain(std::string_view text) const {
  const TextPart part{.text = std::string(text), .is_plain = true};
  return EncodeParts({&part, 1});
}

std::vector<int32_t> Tokenizer::EncodeWithSpecial(std::string_view text) const {
  std::vector<int32_t> ids = PrefixIds();
  const std::vector<int32_t> text_ids = Encode(text);
  ids.insert(ids.end(), text_ids.begin(), text_ids.end());
  ids.insert(ids.end(), SuffixIds().begin(), SuffixIds().end());
  return ids;
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
  if (spec_.is_sliced) {
    StretchCutter slices(whole);
    size_t begin = 0;
    for (const size_t end : SliceEnds(whole.text)) {
      EncodeSlice(slices.Cut({begin, end}), work);
      begin = end;
    }
  } else {
    EncodeSlice(whole, work);
  }
  return std::move(work.ids);
}

// Appends the ids of a text in which added tokens are looked for.
void Tokenizer::EncodeSlice(const MarkedText& text, Work& work) const {
  StretchCutter cutter(text);
  size_t done = 0;
  for (const auto& match : raw_tokens_.FindAll(text.text, text.plain)) {
    EncodeBetween(cutter.Cut({done, match.range.begin}), done == 0, work);
    work.ids.push_back(match.id);
    done = match.range.end;
  }
  EncodeBetween(cutter.Cut({done, text.text.size()}), done == 0, work);
}

// Appends the ids of a text between two added tokens. `is_first`: nothing stands before it.
void Tokenizer::EncodeBetween(MarkedText text, bool is_first, Work& work) const {
  const MarkedText normalized = Normalized(spec_.normalizer, std::move(text), work.regex);
  const std::string_view view = normalized.text;
  size_t done = 0;
  for (const auto& match : normalized_tokens_.FindAll(view, normalized.plain)) {
    EncodeText(view.substr(done, match.range.begin - done), is_first && done == 0, work);
    work.ids.push_back(match.id);
    done = match.range.end;
  }
  EncodeText(view.substr(done), is_first && done == 0, work);
}

void Tokenizer::EncodeText(std::string_view text, bool is_first, Work& work) const {
  PreTokenize(spec_.pre_tokenizer, text, is_first, work.regex,
              [&](std::string_view piece) { bpe_.Encode(piece, work.bpe, work.ids); });
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool skip_special) const {
  StreamingDetokenizer stream(*this, skip_special);
  std::string text;
  for (const int32_t id : ids) text += stream.Push(id);
  return text + stream.Flush();
}

bool Tokenizer::HasToken(int32_t id) const {
  return id >= 0 && id < NumIds() && spec_.vocabulary[static_cast<size_t>(id)].exists;
}

std::string_view Tokenizer::TokenText(int32_t id) const {
  return HasToken(id) ? spec_.vocabulary[static_cast<size_t>(id)].text : std::string_view();
}

bool Tokenizer::IsSpecial(int32_t id) const {
  return HasToken(id) && spec_.vocabulary[static_cast<size_t>(id)].special;
}

bool Tokenizer::IsByteToken(int32_t id) const {
  return HasToken(id) && is_byte_[static_cast<size_t>(id)];
}

std::optional<int32_t> Tokenizer::TokenId(std::string_view token_text) const {
  const auto found = id_of_text_.find(std::string(token_text));
  if (found == id_of_text_.end()) return std::nullopt;
  return found->second;
}

std::string_view Tokenizer::TokenBytes(int32_t id) const {
  return HasToken(id) ? std::string_view(bytes_of_id_[static_cast<size_t>(id)])
                      : std::string_view();
}

}  // namespace wideload::tokenizer
