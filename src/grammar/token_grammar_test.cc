#include "grammar/token_grammar.h"

#include <gtest/gtest.h>

#include <random>

#include "grammar/testing.h"

namespace wideload::grammar {
namespace {

std::shared_ptr<TokenGrammar> Shared(Grammar grammar) {
  return std::make_shared<TokenGrammar>(std::move(grammar), SmallTrie());
}

// Allowed is what Advance takes, of all ids.
void ExpectTheSame(TokenMatcher& matcher, const std::string& text) {
  const auto allowed = matcher.Allowed();
  for (int32_t token = 0; token < SmallTrie()->vocab_size(); ++token) {
    TokenMatcher copy = matcher;
    ASSERT_EQ(IsAllowed(*allowed, token), copy.Advance(token)) << token << " after " << text;
  }
}

TEST(TokenMatcher, AllowsWhatItTakes) {
  for (const char* schema :
       {R"({"type": "object", "properties": {"a": {"type": "string"}, "ab": {"type": "integer"},
            "c": {"type": "array", "items": {"$ref": "#"}}}, "additionalProperties": true})",
        R"({"anyOf": [{"type": "string", "maxLength": 3}, {"type": "string", "pattern": "^ab"},
            {"type": "boolean"}, {"type": "number"}, {"enum": ["abc", "x\"y", null]},
            {"type": "array"}]})",
        R"({"type": "string", "minLength": 2, "maxLength": 5})"}) {
    const auto grammar = Shared(GrammarOf(schema));
    std::mt19937 random(7);
    for (int run = 0; run < 8; ++run) {
      TokenMatcher matcher(grammar);
      std::string text;
      for (int step = 0; step < 40 && matcher.GoesOn(); ++step) {
        ExpectTheSame(matcher, text);
        std::vector<int32_t> choices;
        const auto allowed = matcher.Allowed();
        for (int32_t token = 0; token < SmallTrie()->vocab_size(); ++token)
          if (IsAllowed(*allowed, token)) choices.push_back(token);
        ASSERT_FALSE(choices.empty()) << text;
        const int32_t token = choices[random() % choices.size()];
        ASSERT_TRUE(matcher.Advance(token));
        text += SmallTrie()->BytesOf(token);
      }
    }
  }
}

TEST(TokenMatcher, EndsWhereTheTextMayEnd) {
  const auto grammar = Shared(PatternGrammar("ab?", "p"));
  TokenMatcher matcher(grammar);
  EXPECT_FALSE(matcher.IsEnd());
  EXPECT_TRUE(matcher.Advance('a'));
  EXPECT_TRUE(matcher.IsEnd());
  EXPECT_TRUE(matcher.GoesOn());
  TokenMatcher copy = matcher;
  EXPECT_TRUE(copy.Advance('b'));
  EXPECT_TRUE(copy.IsEnd());
  EXPECT_FALSE(copy.GoesOn());
  EXPECT_FALSE(copy.Advance('b'));
  EXPECT_FALSE(copy.IsEnd());
  EXPECT_TRUE(matcher.GoesOn()) << "a copy is on its own";
}

TEST(TokenMatcher, SpecialTokensComeWhereTheGrammarNamesThem) {
  const int32_t mark = *SmallTokenizer().TokenId("<|mark|>");
  GrammarBuilder builder;
  const RuleId root = builder.AddRule();
  builder.Define(root, builder.Row({builder.Until(SmallTrie()->MarkBytes("<|mark|>")),
                                    builder.Bytes(SmallTrie()->MarkBytes("abc"))}));
  TokenMatcher matcher(Shared(builder.Build(root)));
  EXPECT_TRUE(IsAllowed(*matcher.Allowed(), mark));
  EXPECT_TRUE(matcher.Advance('x'));
  EXPECT_TRUE(matcher.Advance(mark));
  EXPECT_FALSE(IsAllowed(*matcher.Allowed(), mark));
  EXPECT_TRUE(IsAllowed(*matcher.Allowed(), 'a'));
  TokenMatcher text(Shared(GrammarOf(R"({"type": "string"})")));
  EXPECT_TRUE(text.Advance('"'));
  EXPECT_FALSE(IsAllowed(*text.Allowed(), mark));
  EXPECT_TRUE(IsAllowed(*text.Allowed(), '<'));
}

TEST(TokenMatcher, GoesOnWhenWhatWasFoundIsDropped) {
  // Each further bracket is a reading of its own.
  const auto grammar = Shared(GrammarOf(R"({"type": "array", "items": {"$ref": "#"}})"));
  TokenMatcher deep(grammar), waiting(grammar);
  ASSERT_TRUE(waiting.Advance('['));
  constexpr int kDepth = 40'000;
  for (int i = 0; i < kDepth; ++i) {
    ASSERT_TRUE(deep.Advance('['));
    deep.Allowed();
  }
  EXPECT_LE(SmallTrie()->cached_bytes(), 2 * TokenGrammar::kMaxCachedBytes);
  for (int i = 0; i < kDepth; ++i) ASSERT_TRUE(deep.Advance(']')) << i;
  EXPECT_TRUE(deep.IsEnd());
  EXPECT_FALSE(deep.GoesOn());
  EXPECT_TRUE(IsAllowed(*waiting.Allowed(), ']'));
  EXPECT_TRUE(waiting.Advance(']'));
  EXPECT_TRUE(waiting.IsEnd());
}

TEST(TokenTrie, CountsMemoryBackWhenGrammarsGo) {
  const int64_t before = SmallTrie()->cached_bytes();
  {
    TokenMatcher matcher(Shared(ObjectGrammar()));
    matcher.Allowed();
    EXPECT_GT(SmallTrie()->cached_bytes(), before);
  }
  EXPECT_EQ(SmallTrie()->cached_bytes(), before);
}

}  // namespace
}  // namespace wideload::grammar
