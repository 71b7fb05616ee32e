// A tokenizer.json small enough to reason about, for tests and fuzzers.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "tokenizer/unicode.h"

namespace wideload::tokenizer {

// Byte-level BPE without normaliser or splits: ids 0..255 are the bytes; each merge, given as bytes
// "left right" (so without spaces of its own), makes the next id.
inline Json SmallTokenizerJson(const std::vector<std::string>& merges = {}) {
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte)
    vocab[ToByteAlphabet(std::string(1, static_cast<char>(byte)))] = byte;
  Json list = Json::array();
  for (const std::string& merge : merges) {
    const size_t space = merge.find(' ');
    const std::string left = ToByteAlphabet(merge.substr(0, space));
    const std::string right = ToByteAlphabet(merge.substr(space + 1));
    std::string both = left;
    both.append(" ").append(right);
    list.push_back(both);
    const size_t id = vocab.size();
    vocab.emplace(left + right, id);
  }
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  return {{"version", "1.0"},
          {"added_tokens", Json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", list}}}};
}

// The same with Splits before ByteLevel, isolated, one for each regular expression.
inline Json SmallTokenizerJson(const std::vector<std::string>& merges,
                               const std::vector<std::string>& splits) {
  Json json = SmallTokenizerJson(merges);
  Json parts = Json::array();
  for (const std::string& regex : splits)
    parts.push_back({{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}});
  parts.push_back(json["pre_tokenizer"]);
  json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", parts}};
  return json;
}

// A tiktoken.model with the bytes alone: each is its own rank.
inline std::string SmallTiktokenModel() {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string model;
  for (size_t byte = 0; byte < 256; ++byte) {
    model += {kDigits[byte >> 2], kDigits[(byte & 3) << 4]};
    model += "== " + std::to_string(byte) + "\n";
  }
  return model;
}

// The bytes of a text of a fuzzer: every branch of the tokenizer in a few characters.
inline constexpr char kMixedText[] =
    "Don't  pay 1234\u20ac, \u65e5\u672c\u8a9e e\u0301!\r\n\t<|a|> ";

}  // namespace wideload::tokenizer
