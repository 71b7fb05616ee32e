#include "evaluation/scoring.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "base/error.h"
#include "tokenizer/small_tokenizer.h"

namespace wideload::evaluation {
namespace {

using Ids = std::vector<int32_t>;

// The expected windows are those of lm_eval.utils.get_rolling_token_windows and
// make_disjoint_window with context_len 1.
TEST(RollingWindows, AreThoseOfLmEval) {
  const Ids ids = {10, 11, 12, 13, 14, 15, 16};
  const std::vector<Prediction> windows = RollingWindows(ids, 1, 3);
  ASSERT_EQ(windows.size(), 3);
  EXPECT_EQ(windows[0].ids, (Ids{1, 10, 11}));
  EXPECT_EQ(windows[0].targets, (Ids{10, 11, 12}));
  EXPECT_EQ(windows[1].ids, (Ids{12, 13, 14}));
  EXPECT_EQ(windows[1].targets, (Ids{13, 14, 15}));
  EXPECT_EQ(windows[2].ids, (Ids{13, 14, 15}));
  EXPECT_EQ(windows[2].targets, (Ids{16}));
  EXPECT_EQ(windows[0].first, 0);
  EXPECT_EQ(windows[2].first, 2);
}

TEST(RollingWindows, PredictEveryTokenOnce) {
  for (int64_t length = 0; length < 30; ++length) {
    Ids ids(static_cast<size_t>(length));
    std::iota(ids.begin(), ids.end(), 100);
    for (int64_t max_ids = 1; max_ids < 12; ++max_ids) {
      Ids predicted;
      for (const Prediction& window : RollingWindows(ids, 1, max_ids)) {
        EXPECT_LE(std::ssize(window.ids), max_ids);
        EXPECT_EQ(window.first + std::ssize(window.targets), std::ssize(window.ids));
        predicted.insert(predicted.end(), window.targets.begin(), window.targets.end());
      }
      EXPECT_EQ(predicted, ids);
    }
  }
}

class AnswerTest : public testing::Test {
 protected:
  Prediction Of(std::string_view context, std::string_view answer, int64_t max_ids = 100) const {
    return AnswerOf({.tokenizer = tokenizer_, .prefix = 0, .max_ids = max_ids}, context, answer);
  }
  const tokenizer::Tokenizer tokenizer_ = tokenizer::Tokenizer::FromText(
      DumpJson(tokenizer::SmallTokenizerJson({"a b"})), "small.json");
};

TEST_F(AnswerTest, IsWhatFollowsTheTokensOfItsContext) {
  const Prediction prediction = Of("x", " y");
  EXPECT_EQ(prediction.ids, (Ids{'x', ' '}));
  EXPECT_EQ(prediction.targets, (Ids{' ', 'y'}));
  EXPECT_EQ(prediction.first, 0);
}

TEST_F(AnswerTest, HasTheWhiteSpaceAtTheEndOfItsContext) {
  const Prediction prediction = Of("xz \n", "y");
  EXPECT_EQ(prediction.ids, (Ids{'x', 'z', ' ', '\n'}));
  EXPECT_EQ(prediction.targets, (Ids{' ', '\n', 'y'}));
  EXPECT_EQ(prediction.first, 1);
}

TEST_F(AnswerTest, FollowsThePrefixWhereThereIsNoContext) {
  const Prediction prediction = Of("", "y");
  EXPECT_EQ(prediction.ids, (Ids{0}));
  EXPECT_EQ(prediction.targets, (Ids{'y'}));
}

TEST_F(AnswerTest, IsCutOffAtTheBeginningOfItsContext) {
  const Prediction prediction = Of("uvwx", "yz", 3);
  EXPECT_EQ(prediction.ids, (Ids{'w', 'x', 'y'}));
  EXPECT_EQ(prediction.targets, (Ids{'y', 'z'}));
  EXPECT_EQ(prediction.first, 1);
  EXPECT_THROW(Of("u", "abcde", 3), Error);
}

TEST_F(AnswerTest, WithoutATokenOfItsOwnIsRefused) { EXPECT_THROW(Of("a", "b"), Error); }

TEST(LogProbability, IsThatOfTheSoftmax) {
  const std::vector<float> logits = {0, std::log(3.0F), 1000};
  EXPECT_NEAR(LogProbability(std::span(logits).first(2), 1), std::log(0.75), 1e-7);
  EXPECT_EQ(LogProbability(logits, 2), 0);
}

TEST(TextScore, IsPerTokenWordAndByte) {
  const TextSize size = SizeOf("a bc\n\nd ", 4);
  EXPECT_EQ(size.bytes, 8);
  EXPECT_EQ(size.words, 4);  // as re.split(r"\s+") has it: an empty one at the end
  const TextScore score{.size = size, .log_probability = -8};
  EXPECT_DOUBLE_EQ(score.perplexity(), std::exp(2));
  EXPECT_DOUBLE_EQ(score.word_perplexity(), std::exp(2));
  EXPECT_DOUBLE_EQ(score.byte_perplexity(), std::exp(1));
  EXPECT_DOUBLE_EQ(score.bits_per_byte(), 1 / std::log(2.0));
}

TEST(Accuracy, HasTheStandardErrorOfTheSample) {
  const Accuracy accuracy = AccuracyOf(3, 4);
  EXPECT_DOUBLE_EQ(accuracy.mean, 0.75);
  EXPECT_DOUBLE_EQ(accuracy.standard_error.value_or(0), 0.25);  // stdev([1, 1, 1, 0]) / 2
  EXPECT_EQ(AccuracyOf(1, 1).standard_error, std::nullopt);
}

TEST(Choose, GoesByTheWholeAndByCharacters) {
  const Question question{.context = "", .choices = {"ab", "\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9"}};
  const double log_probabilities[] = {-3, -4};
  const Choice choice = Choose(question, log_probabilities);
  EXPECT_EQ(choice.most_likely, 0);
  EXPECT_EQ(choice.most_likely_by_length, 1);  // -1.5 and -1: four characters of two bytes
  const double equal[] = {-2, -2};
  EXPECT_EQ(Choose(question, equal).most_likely, 0);
}

}  // namespace
}  // namespace wideload::evaluation
