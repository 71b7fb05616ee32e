#include "tokenizer/tiktoken.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <unordered_map>

#include "base/error.h"
#include "tokenizer/spec_fields.h"
#include "tokenizer/unicode.h"

namespace wideload::tokenizer {
namespace {

constexpr size_t kNumAddedTokens = 256;
constexpr size_t kMaxTokens = 1 << 24;
// Each token is looked at once for each of its bytes; published ones have at most 256.
constexpr size_t kMaxTokenBytes = 512;
constexpr size_t kMaxSlice = 400'000;
constexpr size_t kMaxRun = 25'000;

// Han apart; then as in o200k, without it.
constexpr std::string_view kPattern =
    R"([\p{Han}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*)"
    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+)"
    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// The bytes that base64 text with its padding stands for; nothing if it is none.
std::optional<std::string> FromBase64(std::string_view text) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  std::string bytes;
  uint32_t bits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t digit = i + padding < text.size() ? kDigits.find(text[i]) : 0;
    if (digit == std::string_view::npos) return std::nullopt;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    if (i % 4 != 3) continue;
    for (const int shift : {16, 8, 0}) bytes += static_cast<char>(bits >> shift & 0xFF);
    bits = 0;
  }
  bytes.resize(bytes.size() - padding);
  return bytes;
}

class TiktokenReader {
 public:
  explicit TiktokenReader(TokenizerSpec& spec) : spec_(spec) {}

  void ReadTokens(std::string_view text) {
    for (size_t begin = 0, number = 1; begin < text.size(); ++number) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      std::string_view line = text.substr(begin, end - begin);
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (!line.empty()) ReadToken(line, number);
      begin = end + 1;
    }
    if (ids_.empty()) Throw(ErrorKind::kCorrupt, "{} has no tokens", spec_.source);
    spec_.vocabulary.resize(ids_.size());
    for (const auto& [bytes, id] : ids_) AddToken(bytes, id);
    for (int byte = 0; byte < 256; ++byte)
      if (!ids_.contains(std::string(1, static_cast<char>(byte))))
        Throw(ErrorKind::kCorrupt,
              "{} has no token for byte 0x{:02X}; it must have one for every byte", spec_.source,
              byte);
  }

  // A pair of tokens merges where it is a token: at its rank.
  void AddMerges() {
    for (const auto& [bytes, id] : ids_) {
      for (size_t cut = 1; cut < bytes.size(); ++cut) {
        const auto left = ids_.find(bytes.substr(0, cut));
        if (left == ids_.end()) continue;
        const auto right = ids_.find(bytes.substr(cut));
        if (right == ids_.end()) continue;
        spec_.bpe.merges.push_back(
            {.left = left->second, .right = right->second, .merged = id, .rank = id});
      }
    }
  }

  void AddAddedTokens(const JsonFields& config) {
    const size_t first = ids_.size();
    spec_.vocabulary.resize(first + kNumAddedTokens);
    if (config.Has("added_tokens_decoder")) {
      const JsonFields tokens = config.Object("added_tokens_decoder");
      for (const auto& [name, value] : tokens.json().items()) {
        size_t id = 0;
        const auto [stop, error] = std::from_chars(name.data(), name.data() + name.size(), id);
        if (error != std::errc() || stop != name.data() + name.size() || id < first ||
            id >= first + kNumAddedTokens)
          Throw(ErrorKind::kInvalid, "{} has the id {}; ids of added tokens lie in [{}, {}]",
                config.Where("added_tokens_decoder"), name, first, first + kNumAddedTokens - 1);
        ReadAddedToken(tokens.Object(name), id);
      }
    }
    for (size_t id = first; id < first + kNumAddedTokens; ++id)
      if (!spec_.vocabulary[id].exists)
        AddAddedToken(fmt::format("<|reserved_token_{}|>", id), id, false);
  }

 private:
  void ReadToken(std::string_view line, size_t number) {
    const size_t blank = line.find(' ');
    const auto bytes = FromBase64(line.substr(0, blank));
    int32_t rank = -1;
    const std::string_view digits = blank == std::string_view::npos ? "" : line.substr(blank + 1);
    const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
    if (!bytes || error != std::errc() || stop != digits.data() + digits.size() || rank < 0)
      Throw(ErrorKind::kCorrupt, "{} line {} is \"{}\"; it must be a token in base64 and its rank",
            spec_.source, number, std::string(line.substr(0, 60)));
    if (bytes->size() > kMaxTokenBytes)
      Throw(ErrorKind::kUnsupported, "{} line {} has a token of {} bytes; at most {} are supported",
            spec_.source, number, bytes->size(), kMaxTokenBytes);
    if (ids_.size() == kMaxTokens)
      Throw(ErrorKind::kUnsupported, "{} has more than {} tokens", spec_.source, kMaxTokens);
    if (!ids_.emplace(*bytes, rank).second)
      Throw(ErrorKind::kCorrupt, "{} line {} has a token that a line above has, too", spec_.source,
            number);
  }

  void AddToken(const std::string& bytes, int32_t id) {
    if (static_cast<size_t>(id) >= ids_.size() || spec_.vocabulary[static_cast<size_t>(id)].exists)
      Throw(ErrorKind::kCorrupt,
            "{} has the rank {}, twice or too large; the ranks of {} tokens must be 0 to {}",
            spec_.source, id, ids_.size(), ids_.size() - 1);
    spec_.vocabulary[static_cast<size_t>(id)] = {.text = ToByteAlphabet(bytes), .exists = true};
    spec_.bpe.tokens.push_back({.bytes = bytes, .id = id});
  }

  void ReadAddedToken(const JsonFields& fields, size_t id) {
    const std::string content = fields.String("content");
    if (content.empty()) fields.Refuse("content", "a string that is not empty");
    // That tokenizer finds its added tokens in the text as it is, whatever stands beside them.
    for (const char* flag : {"lstrip", "rstrip", "single_word", "normalized"})
      if (fields.BoolOr(flag, false)) RefuseUnsupported(fields, flag, "false");
    AddAddedToken(content, id, fields.BoolOr("special", false));
  }

  void AddAddedToken(const std::string& content, size_t id, bool is_special) {
    const auto [other, is_new] = added_ids_.emplace(content, id);
    if (!is_new)
      Throw(ErrorKind::kCorrupt, "{}: the ids {} and {} are both {}; contents must differ",
            spec_.source, other->second, id, content);
    spec_.vocabulary[id] = {.text = content, .exists = true, .special = is_special, .added = true};
    spec_.added_tokens.push_back(
        {.content = content, .id = static_cast<int32_t>(id), .special = is_special});
  }

  TokenizerSpec& spec_;
  std::unordered_map<std::string, int32_t> ids_;
  std::unordered_map<std::string, size_t> added_ids_;
};

// Python's str.isspace, which has four control characters more than White_Space.
bool IsPythonSpace(uint32_t c) { return IsWhiteSpace(c) || (c >= 0x1C && c <= 0x1F); }

}  // namespace

TokenizerSpec ParseTiktoken(std::string_view model, const std::string& source,
                            const JsonFields& config) {
  if (config.StringOr("tokenizer_class", "TikTokenTokenizer") != "TikTokenTokenizer")
    RefuseUnsupported(config, "tokenizer_class", "TikTokenTokenizer beside a tiktoken.model");
  TokenizerSpec spec;
  spec.source = source;
  spec.is_sliced = true;
  static const Regex pattern(kPattern, "the pattern for tiktoken.model");
  spec.pre_tokenizer.splits.push_back({.pattern = pattern});
  spec.pre_tokenizer.is_byte_level = true;
  spec.decoder.is_byte_level = true;
  spec.bpe.ignore_merges = true;
  TiktokenReader reader(spec);
  reader.ReadTokens(model);
  reader.AddMerges();
  reader.AddAddedTokens(config);
  return spec;
}

std::vector<size_t> SliceEnds(std::string_view text) {
  std::vector<size_t> ends;
  size_t slice = 0;  // characters since the last 400,000 were cut off
  size_t run = 0;    // of them the last ones of a kind
  bool is_space = false;
  for (size_t i = 0; i < text.size();) {
    const Utf8Unit unit = Utf8At(text, i);
    const bool is_now_space = IsPythonSpace(unit.code_point);
    if (slice == kMaxSlice) {
      ends.push_back(i);
      slice = run = 0;
    }
    if (run > 0 && is_now_space != is_space) run = 0;
    if (run == kMaxRun) {
      ends.push_back(i);
      run = 0;
    }
    is_space = is_now_space;
    ++run;
    ++slice;
    i += unit.length;
  }
  ends.push_back(text.size());
  return ends;
}

}  // namespace wideload::tokenizer
