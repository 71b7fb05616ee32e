#include "runtime/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

namespace wideload::runtime {
namespace {

int32_t SampleOnce(std::vector<float> logits, const SamplingParams& params,
                   std::vector<int32_t> tokens = {0}, uint64_t index = 0,
                   std::vector<TokenLogprob>* logprobs = nullptr) {
  Sampler sampler(static_cast<int64_t>(logits.size()));
  std::vector<TokenLogprob> scratch;
  return sampler.Sample({.logits = logits, .tokens = tokens, .prompt_length = 1, .index = index},
                        params, logprobs ? *logprobs : scratch);
}

std::map<int32_t, int> Histogram(const std::vector<float>& logits, const SamplingParams& params,
                                 uint64_t draws) {
  std::map<int32_t, int> histogram;
  for (uint64_t i = 0; i < draws; ++i) ++histogram[SampleOnce(logits, params, {0}, i)];
  return histogram;
}

TEST(Sampler, GreedyTakesTheLowestIdOfEqualLogits) { EXPECT_EQ(SampleOnce({1, 3, 3, 2}, {}), 1); }

TEST(Sampler, RefusesNaNAndAllInfinite) {
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(SampleOnce({1, std::nanf(""), 3}, {}), -1);
  EXPECT_EQ(SampleOnce({-inf, -inf}, {}), -1);
  EXPECT_EQ(SampleOnce({-inf, 0}, {.temperature = 1}), 1);
}

TEST(Sampler, DrawsInProportionToTheSoftmax) {
  const std::map<int32_t, int> histogram =
      Histogram({std::log(1.F), std::log(2.F), std::log(5.F)}, {.temperature = 1, .seed = 3}, 8000);
  // 8000 draws: standard deviation of a share is below 0.6 %; 3 % is five of them.
  EXPECT_NEAR(histogram.at(0) / 8000.0, 0.125, 0.03);
  EXPECT_NEAR(histogram.at(1) / 8000.0, 0.25, 0.03);
  EXPECT_NEAR(histogram.at(2) / 8000.0, 0.625, 0.03);
}

TEST(Sampler, VanishingTemperatureTakesTheLargest) {
  EXPECT_EQ(SampleOnce({1, 3, 2}, {.temperature = 1e-310}), 1);
  EXPECT_EQ(SampleOnce({-1, -3, -2}, {.temperature = 1e-310, .top_p = 0.5}), 0);
}

TEST(Sampler, CutsByTopKTopPAndMinP) {
  const std::vector<float> logits = {std::log(4.F), std::log(3.F), std::log(2.F), std::log(1.F)};
  EXPECT_EQ(Histogram(logits, {.temperature = 1, .top_k = 2}, 500).size(), 2u);
  EXPECT_EQ(Histogram(logits, {.temperature = 1, .top_p = 0.65}, 500).size(), 2u);
  EXPECT_EQ(Histogram(logits, {.temperature = 1, .top_p = 0.75}, 500).size(), 3u);
  EXPECT_EQ(Histogram(logits, {.temperature = 1, .min_p = 0.4}, 500).size(), 3u);
  EXPECT_EQ(Histogram(logits, {.temperature = 1}, 500).size(), 4u);
}

TEST(Sampler, PenalisesTokensSeenAndGenerated) {
  // tokens: prompt {2}, generated {1, 1}
  const std::vector<int32_t> tokens = {2, 1, 1};
  EXPECT_EQ(SampleOnce({0, 3, 2.5F}, {}, tokens), 1);
  EXPECT_EQ(SampleOnce({0, 3, 2.5F}, {.frequency_penalty = 0.3}, tokens), 2);
  EXPECT_EQ(SampleOnce({0, 3, 2.5F}, {.presence_penalty = 0.6}, tokens), 2);
  EXPECT_EQ(SampleOnce({2, 3, 2.5F}, {.repetition_penalty = 2}, tokens), 0);
  EXPECT_EQ(SampleOnce({-2, -1, -3}, {.repetition_penalty = 3}, tokens), 0);
}

TEST(Sampler, SurvivesPenaltiesThatNoFloatHolds) {
  EXPECT_EQ(SampleOnce({1, 3, 2}, {.repetition_penalty = 1e-300}, {2}), 2);
  EXPECT_EQ(SampleOnce({-1, -3, -2}, {.repetition_penalty = 1e300}, {0, 1}), 2);
  EXPECT_EQ(SampleOnce({1, 3, 2}, {.temperature = 1, .repetition_penalty = 1e-300}, {2}), 2);
}

TEST(Sampler, DependsOnSeedIndexAndPositionAlone) {
  EXPECT_EQ(UniformRandom(1, 2, 3), UniformRandom(1, 2, 3));
  EXPECT_NE(UniformRandom(1, 2, 3), UniformRandom(1, 2, 4));
  EXPECT_NE(UniformRandom(1, 2, 3), UniformRandom(1, 3, 3));
  EXPECT_NE(UniformRandom(1, 2, 3), UniformRandom(2, 2, 3));
}

TEST(Sampler, ReportsLogprobsOfTheUnchangedLogits) {
  std::vector<TokenLogprob> logprobs;
  SampleOnce({std::log(1.F), std::log(3.F)}, {.repetition_penalty = 100, .num_logprobs = 2}, {1}, 0,
             &logprobs);
  ASSERT_EQ(logprobs.size(), 3u);
  EXPECT_EQ(logprobs[0].id, 1) << "log 3 / 100 is still above log 1";
  EXPECT_EQ(logprobs[1].id, 1);
  EXPECT_NEAR(logprobs[1].logprob, std::log(0.75), 1e-6);
  EXPECT_NEAR(logprobs[2].logprob, std::log(0.25), 1e-6);
}

TEST(InvalidField, NamesFieldFoundAndAllowed) {
  EXPECT_EQ(InvalidField({}, 10), "");
  EXPECT_EQ(InvalidField({.top_p = 0}, 10), "top_p is 0; allowed: above 0, at most 1");
  EXPECT_NE(InvalidField({.temperature = std::nan("")}, 10), "");
}

TEST(Sampler, BiasesAndForbiddenIdsMoveTheChoice) {
  const std::vector<float> logits = {1, 3, 2};
  Sampler sampler(3);
  const std::vector<int32_t> tokens = {0};
  std::vector<TokenLogprob> logprobs;
  const auto choose = [&](std::vector<TokenBias> bias, std::vector<int32_t> forbidden) {
    return sampler.Sample(
        {.logits = logits, .tokens = tokens, .bias = bias, .forbidden = forbidden},
        {.num_logprobs = 1}, logprobs);
  };
  EXPECT_EQ(choose({{0, 2.5F}}, {}), 0);
  EXPECT_EQ(choose({{1, -100}}, {}), 2);
  EXPECT_EQ(logprobs[1].id, 1);  // of the model, not of the bias
  EXPECT_EQ(choose({}, {1, -1, 7}), 2);
  EXPECT_EQ(choose({}, {0, 1, 2}), -1);
}

TEST(Sampler, ChoosesAllowedTokensOnly) {
  std::vector<float> logits(70);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i);
  Sampler sampler(70);
  const std::vector<int32_t> tokens = {0};
  std::vector<TokenLogprob> logprobs;
  const auto choose = [&](grammar::TokenBits allowed, double temperature) {
    return sampler.Sample({.logits = logits, .tokens = tokens, .allowed = allowed},
                          {.temperature = temperature, .num_logprobs = 0}, logprobs);
  };
  EXPECT_EQ(choose({0, 0b110}, 0), 66);
  EXPECT_EQ(choose({0b1000, 0}, 1), 3);
  EXPECT_LT(logprobs[0].logprob, -60) << "of the model, not of what is allowed";
  EXPECT_EQ(choose({0, 0}, 1), -1);
}

}  // namespace
}  // namespace wideload::runtime
