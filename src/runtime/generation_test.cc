#include "runtime/generation.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/json.h"
#include "tokenizer/small_tokenizer.h"

namespace wideload::runtime {
namespace {

// Ids 0 to 255 are bytes.
const tokenizer::Tokenizer& Small() {
  static const tokenizer::Tokenizer tokenizer = tokenizer::Tokenizer::FromText(
      DumpJson(tokenizer::SmallTokenizerJson({"a b"})), "small.json");
  return tokenizer;
}

Event TokenEvent(int32_t token, FinishReason finish = FinishReason::kNone) {
  return {.id = 0, .token = token, .finish = finish, .error = {}, .logprobs = {}};
}

TEST(Generation, AnEndOfSequenceTokenIsNoText) {
  Generation generation(&Small(), {.stop = {"xy"}});
  EXPECT_EQ(generation.Take(TokenEvent('x')).text, "");  // may begin the stop string
  const Delta last = generation.Take(TokenEvent('y', FinishReason::kStop));
  EXPECT_EQ(last.text, "x");
  EXPECT_EQ(last.token, 'y');
  EXPECT_EQ(last.finish, FinishReason::kStop);
}

TEST(Generation, AStopStringEndsItBeforeTheEngineDoes) {
  Generation generation(&Small(), {.stop = {"bc"}});
  EXPECT_EQ(generation.Take(TokenEvent('a')).text, "a");
  generation.Take(TokenEvent('b'));
  const Delta last = generation.Take(TokenEvent('c'));
  EXPECT_EQ(last.text, "");
  EXPECT_EQ(last.finish, FinishReason::kStop);
  EXPECT_EQ(generation.num_tokens(), 3);
  EXPECT_FALSE(generation.Take(TokenEvent('d')).is_last());
  EXPECT_FALSE(generation.End(FinishReason::kCancelled).is_last());
  EXPECT_EQ(generation.finish(), FinishReason::kStop);
}

TEST(Generation, AStopStringAtTheLastTokenIsAStop) {
  Generation generation(&Small(), {.stop = {"b"}});
  EXPECT_EQ(generation.Take(TokenEvent('b', FinishReason::kLength)).finish, FinishReason::kStop);
}

TEST(Generation, TheLengthGivesTheTextHeldBack) {
  Generation generation(&Small(), {.stop = {"bc"}});
  EXPECT_EQ(generation.Take(TokenEvent('b', FinishReason::kLength)).text, "b");
}

TEST(Generation, ADeadlineGivesTheTextHeldBack) {
  Generation generation(&Small(), {.stop = {"bc"}});
  generation.Take(TokenEvent('b'));
  const Delta last = generation.End(FinishReason::kDeadline);
  EXPECT_EQ(last.text, "b");
  EXPECT_EQ(last.finish, FinishReason::kDeadline);
}

TEST(Generation, AnErrorOfTheEngineIsPassedOn) {
  Generation generation(nullptr, {});
  const Delta last = generation.Take(
      {.id = 0, .finish = FinishReason::kError, .error = "no finite logits", .logprobs = {}});
  EXPECT_EQ(last.error, "no finite logits");
  EXPECT_TRUE(last.is_last());
}

TEST(Generation, RefusesEmptyStopStrings) {
  EXPECT_THROW(Generation(&Small(), {.stop = {""}}), Error);
}

}  // namespace
}  // namespace wideload::runtime
