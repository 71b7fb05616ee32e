#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "checkpoint/test_folder.h"
#include "model/registry.h"

namespace wideload::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// What is said against a tiny model whose config.json is merged with `patch`.
std::vector<std::string> Said(const std::string& name, const Json& patch) {
  Json json = ReadJsonFile(checkpoint::SourceDir() + "/testdata/models/" + name + "/config.json");
  json.merge_patch(patch);
  try {
    return ParseModel(DumpJson(json), "config.json").unsupported;
  } catch (const Error& e) {
    return {e.what()};
  }
}

std::vector<std::string> SaidOf(const std::string& name, const Json& quantization) {
  return Said(name, {{"quantization_config", quantization}});
}

TEST(Quantization, EveryKeyOfFp8IsOfEffectOrRefusedByName) {
  const std::string fp8 = "tiny-deepseek-v3-fp8";
  for (const Json& fine :
       {Json{{"activation_scheme", nullptr}}, Json{{"scale_fmt", "ue8m0"}},
        Json{{"modules_to_not_convert", {"lm_head"}}}, Json{{"modules_to_not_convert", nullptr}}})
    EXPECT_THAT(SaidOf(fp8, fine), IsEmpty()) << DumpJson(fine);
  const std::pair<const char*, Json> refused[] = {{"activation_scheme", "static"},
                                                  {"activation_scheme", 1},
                                                  {"fmt", "e5m2"},
                                                  {"fmt", 4},
                                                  {"weight_block_size", {64, 64}},
                                                  {"weight_block_size", "128"},
                                                  {"weight_block_size", nullptr},
                                                  {"scale_fmt", 1},
                                                  {"modules_to_not_convert", "lm_head"},
                                                  {"modules_to_not_convert", {1}},
                                                  {"unheard_of", true},
                                                  {"quant_method", nullptr},
                                                  {"quant_method", "awq"},
                                                  {"quant_method", 8}};
  for (const auto& [key, value] : refused)
    EXPECT_THAT(SaidOf(fp8, {{key, value}}),
                ElementsAre(HasSubstr(fmt::format("quantization_config.{} is ", key))))
        << DumpJson(value);
  EXPECT_THAT(SaidOf(fp8, {{"quant_method", nullptr}}), ElementsAre(HasSubstr("is missing")));
  EXPECT_THAT(Said(fp8, {{"compression_config", {{"format", "x"}}}}),
              ElementsAre(HasSubstr("compression_config")));
}

TEST(Quantization, EveryKeyOfCompressedTensorsIsOfEffectOrRefusedByName) {
  const std::string kimi = "tiny-kimi-k2-int4";
  const auto weights = [](const char* key, const Json& value) {
    return Json{{"config_groups", {{"group_0", {{"weights", {{key, value}}}}}}}};
  };
  const auto group = [](const char* key, const Json& value) {
    return Json{{"config_groups", {{"group_0", {{key, value}}}}}};
  };
  for (const Json& fine :
       {weights("actorder", "static"), weights("observer", "mse"), weights("scale_dtype", nullptr),
        group("format", "pack-quantized"), group("targets", {"re:.*experts.*"}),
        Json{{"ignore", Json::array()}}, Json{{"sparsity_config", Json::object()}},
        Json{{"version", "0.12"}}, Json{{"kv_cache_scheme", nullptr}}})
    EXPECT_THAT(SaidOf(kimi, fine), IsEmpty()) << DumpJson(fine);
  struct Refused {
    const char* where;
    Json patch;
  };
  const Refused refused[] = {
      {"weights.actorder", weights("actorder", "group")},
      {"weights.actorder", weights("actorder", true)},
      {"weights.dynamic", weights("dynamic", true)},
      {"weights.num_bits", weights("num_bits", 8)},
      {"weights.num_bits", weights("num_bits", "4")},
      {"weights.group_size", weights("group_size", nullptr)},
      {"weights.symmetric", weights("symmetric", false)},
      {"weights.strategy", weights("strategy", "channel")},
      {"weights.block_structure", weights("block_structure", {128, 128})},
      {"weights.unheard_of", weights("unheard_of", 1)},
      {"group_0.input_activations", group("input_activations", {{"num_bits", 8}})},
      {"group_0.output_activations", group("output_activations", {{"num_bits", 8}})},
      {"group_0.targets", group("targets", Json::array())},
      {"group_0.targets", group("targets", "Linear")},
      {"group_0.weights", group("weights", nullptr)},
      {"group_0.weights", group("weights", {1})},
      {"group_0.format", group("format", "naive-quantized")},
      {"config_groups.group_0", {{"config_groups", {{"group_0", 1}}}}},
      {"config_groups", {{"config_groups", nullptr}}},
      {"config_groups", {{"config_groups", {{"group_0", nullptr}}}}},
      {"ignore", {{"ignore", "lm_head"}}},
      {"ignore", {{"ignore", {1}}}},
      {"kv_cache_scheme", {{"kv_cache_scheme", {{"num_bits", 8}}}}},
      {"sparsity_config", {{"sparsity_config", {{"format", "sparse-24-bitmask"}}}}},
      {"quantization_status", {{"quantization_status", "initialized"}}},
      {"format", {{"format", "mxfp4-pack-quantized"}}},
      {"unheard_of", {{"unheard_of", 1}}}};
  for (const Refused& one : refused)
    EXPECT_THAT(SaidOf(kimi, one.patch), ElementsAre(HasSubstr(fmt::format("{} is ", one.where))))
        << DumpJson(one.patch);
}

TEST(Quantization, KeysOfMxfp4AreKnown) {
  const std::string mxfp4 = "tiny-gpt-oss-mxfp4";
  EXPECT_THAT(SaidOf(mxfp4, Json::object()), IsEmpty());
  EXPECT_THAT(SaidOf(mxfp4, {{"modules_to_not_convert", 1}}),
              ElementsAre(HasSubstr("modules_to_not_convert is 1")));
  EXPECT_THAT(SaidOf(mxfp4, {{"group_size", 16}}), ElementsAre(HasSubstr("group_size is 16")));
}

TEST(RopeScaling, KeysThatNoTypeHasAreRefusedByName) {
  const auto said = [](const Json& scaling) {
    return Said("tiny-qwen3-moe", {{"rope_scaling", scaling}});
  };
  EXPECT_THAT(said({{"type", "linear"}, {"factor", 2.0}, {"truncate", false}}), IsEmpty());
  EXPECT_THAT(said({{"type", "default"}, {"mrope_section", {1, 2}}}),
              ElementsAre(HasSubstr("rope_scaling.mrope_section is ")));
  EXPECT_THAT(said({{"type", 1}}), ElementsAre(HasSubstr("rope_scaling.type is 1")));
  EXPECT_THAT(said({{"type", "linear"}, {"factor", "2"}}),
              ElementsAre(HasSubstr("rope_scaling.factor is \"2\"")));
  EXPECT_THAT(said({1}), ElementsAre(HasSubstr("rope_scaling is [1]")));
  for (const char* key : {"beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor",
                          "original_max_position_embeddings", "truncate"})
    EXPECT_THAT(said({{"type", "yarn"}, {"factor", 2.0}, {key, "x"}}),
                ElementsAre(HasSubstr(fmt::format("rope_scaling.{} is \"x\"", key))));
}

TEST(Llama4, TemperatureTuningIsABooleanOrANumber) {
  const std::string llama4 = "tiny-llama4-text";
  for (const Json& fine : {Json(true), Json(false), Json(4), Json(0)})
    EXPECT_THAT(Said(llama4, {{"attn_temperature_tuning", fine}}), IsEmpty());
  for (const Json& wrong : {Json("true"), Json(0.5), Json::array(), Json::object()})
    EXPECT_THAT(Said(llama4, {{"attn_temperature_tuning", wrong}}),
                ElementsAre(HasSubstr("attn_temperature_tuning is ")));
}

}  // namespace
}  // namespace wideload::model
