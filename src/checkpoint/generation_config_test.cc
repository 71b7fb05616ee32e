#include "checkpoint/generation_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/test_folder.h"

namespace wideload::checkpoint {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(GenerationConfig, HoldsWhatTheFileSays) {
  const GenerationConfig config = ParseGenerationConfig(
      R"({"eos_token_id":[0,2],"do_sample":true,"temperature":0.7,"top_k":40,"top_p":0.9,
          "min_p":0,"repetition_penalty":1.05})",
      "g.json");
  EXPECT_THAT(config.eos_ids, ElementsAre(0, 2));
  EXPECT_EQ(config.do_sample, true);
  EXPECT_EQ(config.temperature, 0.7);
  EXPECT_EQ(config.top_k, 40);
  EXPECT_EQ(config.top_p, 0.9);
  EXPECT_EQ(config.min_p, 0.0);
  EXPECT_EQ(config.repetition_penalty, 1.05);
}

TEST(GenerationConfig, AbsentFileAndAbsentFieldsAreTheSame) {
  const TestFolder folder;
  EXPECT_EQ(ReadGenerationConfig(folder.path()), GenerationConfig{});
  folder.Write("generation_config.json", R"({"temperature":null})");
  EXPECT_EQ(ReadGenerationConfig(folder.path()), GenerationConfig{});
}

TEST(GenerationConfig, KeepsValuesOutOfRangeForWhoeverUsesThem) {
  const GenerationConfig config = ParseGenerationConfig(
      R"({"do_sample":false,"temperature":-1,"top_k":-1,"top_p":1.1,"min_p":2,"repetition_penalty":0})",
      "g.json");
  EXPECT_EQ(config.temperature, -1.0);
  EXPECT_EQ(config.top_k, -1);
  EXPECT_EQ(config.top_p, 1.1);
}

TEST(GenerationConfig, RefusesOtherTypesByName) {
  const auto refusal = [](const std::string& text) {
    return Refusal([&] { ParseGenerationConfig(text, "g.json"); });
  };
  for (const char* text : {R"({"temperature":"warm"})", R"({"top_k":0.5})", R"({"top_p":true})",
                           R"({"do_sample":1})", R"({"eos_token_id":-1})"})
    EXPECT_THAT(refusal(text), AllOf(HasSubstr("g.json: "), HasSubstr("it must be"))) << text;
  EXPECT_THAT(refusal(R"({"temperature":"warm","top_k":"x","eos_token_id":"y"})"),
              AllOf(HasSubstr("temperature"), HasSubstr("top_k"), HasSubstr("eos_token_id")));
}

TEST(GenerationConfig, ReadsPastInfinityAndRefusesItWhereItMatters) {
  EXPECT_EQ(ParseGenerationConfig(R"({"length_penalty":Infinity,"top_k":3})", "g.json").top_k, 3);
  EXPECT_THAT(Refusal([&] { ParseGenerationConfig(R"({"top_p":NaN})", "g.json"); }),
              HasSubstr("top_p is \"NaN\""));
}

}  // namespace
}  // namespace wideload::checkpoint
