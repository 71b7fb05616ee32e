// For tests and fuzzers: a vocabulary, and what a grammar says of texts.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "grammar/json_schema.h"
#include "grammar/reading.h"
#include "grammar/token_grammar.h"
#include "jinja/json_value.h"
#include "tokenizer/small_tokenizer.h"

namespace wideload::grammar {

// Whether the whole text is of the grammar.
inline bool Accepts(const Grammar& grammar, std::string_view text) {
  Readings readings(grammar);
  int32_t reading = readings.Begin();
  for (const char c : text) reading = readings.Next(reading, static_cast<uint8_t>(c));
  return readings.IsEnd(reading);
}

// Of a schema that is JSON.
inline Grammar GrammarOf(std::string_view schema) {
  return SchemaGrammar(jinja::ParseJsonValue(schema, "the test"), "schema");
}

// The bytes, tokens that cross parts of JSON texts, and the special token <|mark|>.
inline const tokenizer::Tokenizer& SmallTokenizer() {
  static const tokenizer::Tokenizer small = [] {
    Json json = tokenizer::SmallTokenizerJson({"\" ,", "\" :", "} }", "] }", "{ \"", "\": \"",
                                               "\", \"", "a b", "ab c", "1 2", "12 3", "t r",
                                               "tr u", "tru e", "\\ u", "\xc3 \xa9", "\n \n"});
    json["added_tokens"].push_back({{"id", json["model"]["vocab"].size()},
                                    {"content", "<|mark|>"},
                                    {"single_word", false},
                                    {"lstrip", false},
                                    {"rstrip", false},
                                    {"normalized", false},
                                    {"special", true}});
    return tokenizer::Tokenizer::FromText(DumpJson(json), "small.json");
  }();
  return small;
}

// Of a model with more ids than the tokenizer.
inline std::shared_ptr<const TokenTrie> SmallTrie() {
  static const auto trie =
      std::make_shared<const TokenTrie>(SmallTokenizer(), SmallTokenizer().NumIds() + 70);
  return trie;
}

inline bool IsAllowed(const TokenBits& bits, int32_t token) {
  return (bits[static_cast<size_t>(token) / 64] >> (token % 64) & 1) != 0;
}

}  // namespace wideload::grammar
