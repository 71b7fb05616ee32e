#include "checkpoint/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "checkpoint/config_reader.h"
#include "checkpoint/test_folder.h"

namespace wideload::checkpoint {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Json TinyConfig() { return ReadJsonFile(TinyQwen3Moe() + "/config.json"); }

ModelConfig Parse(const Json& json) {
  ConfigReader reader(DumpJson(json), "config.json");
  ModelConfig config = ReadModelConfig(reader);
  reader.ThrowFaults();
  return config;
}

// What is said about the tiny config with one field changed.
std::string RefusalWith(const std::string& field, const Json& value) {
  Json json = TinyConfig();
  json[field] = value;
  return Refusal([&] { Parse(json); });
}

TEST(ModelConfig, BothSpellingsOfTransformersSayTheSame) {
  EXPECT_EQ(Parse(TinyConfig()),
            Parse(ReadJsonFile(TinyQwen3Moe() + "/config.transformers5.json")));
}

TEST(ModelConfig, HoldsEveryFieldOfTheFile) {
  const ModelConfig config = ReadModelConfig(TinyQwen3Moe());
  EXPECT_EQ(config.architecture, "Qwen3MoeForCausalLM");
  EXPECT_EQ(config.model_type, "qwen3_moe");
  EXPECT_EQ(config.vocab_size, 320);
  EXPECT_EQ(config.hidden_size, 64);
  EXPECT_EQ(config.num_layers, 4);
  EXPECT_EQ(config.num_attention_heads, 4);
  EXPECT_EQ(config.num_kv_heads, 2);
  EXPECT_EQ(config.head_dim, 32);
  EXPECT_EQ(config.intermediate_size, 112);
  EXPECT_EQ(config.moe_intermediate_size, 32);
  EXPECT_EQ(config.num_experts, 16);
  EXPECT_EQ(config.top_k, 4);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.max_position_embeddings, 512);
  EXPECT_EQ(config.rope, RopeConfig{.theta = 1e6});
  EXPECT_EQ(config.dtype, DType::kBF16);
  EXPECT_TRUE(config.eos_ids.empty());
  EXPECT_FALSE(config.bos_id.has_value());
}

TEST(ModelConfig, EveryFamilysKeysChooseTheMoeLayers) {
  const auto layers = [](const Json& more) {
    Json json = TinyConfig();
    json["num_hidden_layers"] = 6;
    json.update(more);
    return Parse(json).moe_layers;
  };
  EXPECT_THAT(layers(Json::object()), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(layers({{"decoder_sparse_step", 2}, {"mlp_only_layers", {3, 3, 0}}}),
              ElementsAre(1, 5));
  EXPECT_THAT(layers({{"first_k_dense_replace", 1}, {"moe_layer_freq", 2}}), ElementsAre(2, 4));
  EXPECT_THAT(layers({{"decoder_sparse_step", nullptr}, {"interleave_moe_layer_step", 2}}),
              ElementsAre(1, 3, 5));
  EXPECT_THAT(layers({{"moe_layers", {4, 1}}}), ElementsAre(1, 4));
}

TEST(ModelConfig, DerivesHeadDimFromHiddenSizeWhenAbsent) {
  Json json = TinyConfig();
  json.erase("head_dim");
  EXPECT_EQ(Parse(json).head_dim, 16);
}

TEST(ModelConfig, LooksIntoTheConfigOfTheLanguageModel) {
  Json nested = {{"architectures", {"KimiK25ForConditionalGeneration"}},
                 {"text_config", TinyConfig()},
                 {"eos_token_id", 5}};
  const ModelConfig config = Parse(nested);
  EXPECT_EQ(config.architecture, "KimiK25ForConditionalGeneration");
  EXPECT_EQ(config.hidden_size, 64);
  EXPECT_THAT(config.eos_ids, ElementsAre(5));
}

TEST(ModelConfig, YarnStretchesTheContext) {
  Json json = TinyConfig();
  json["rope_scaling"] = {
      {"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 256}};
  EXPECT_EQ(Parse(json).max_position_embeddings, 1024);
  json["max_position_embeddings"] = 2048;  // says more by itself
  EXPECT_EQ(Parse(json).max_position_embeddings, 2048);
}

TEST(ModelConfig, TakesEverySpellingOfTheDtype) {
  const std::pair<const char*, DType> spellings[] = {{"half", DType::kF16},
                                                     {"float16", DType::kF16},
                                                     {"float", DType::kF32},
                                                     {"auto", DType::kF32},
                                                     {"bfloat16", DType::kBF16}};
  for (const auto& [text, dtype] : spellings) {
    Json json = TinyConfig();
    json["torch_dtype"] = text;
    EXPECT_EQ(Parse(json).dtype, dtype) << text;
  }
}

TEST(ModelConfig, ReadsPastInfinityAndRefusesItWhereItMatters) {
  std::string text = DumpJson(TinyConfig());
  const auto parse = [](const std::string& changed) {
    ConfigReader reader(changed, "config.json");
    ModelConfig config = ReadModelConfig(reader);
    reader.ThrowFaults();
    return config;
  };
  text.insert(1, R"("time_step_limit":[0.0,Infinity,-Infinity,NaN],"note":"a \"NaN\\",)");
  EXPECT_EQ(parse(text), Parse(TinyConfig()));
  text.replace(text.find("1e-06"), 5, "Infinity");
  EXPECT_THAT(Refusal([&] { parse(text); }), HasSubstr("rms_norm_eps is \"Infinity\""));
}

TEST(ModelConfig, EosIsOneIdOrSeveral) {
  Json json = TinyConfig();
  json["eos_token_id"] = 7;
  EXPECT_THAT(Parse(json).eos_ids, ElementsAre(7));
  json["eos_token_id"] = {7, 9, 7};
  EXPECT_THAT(Parse(json).eos_ids, ElementsAre(7, 9));
  EXPECT_THAT(RefusalWith("eos_token_id", {7, -1}), HasSubstr("eos_token_id is [7,-1]"));
  EXPECT_THAT(RefusalWith("eos_token_id", "x"), HasSubstr("eos_token_id is \"x\""));
}

TEST(ModelConfig, RefusesMissingAndImpossibleFieldsByName) {
  for (const char* field : {"architectures", "vocab_size", "hidden_size", "num_hidden_layers",
                            "num_attention_heads", "num_experts", "num_experts_per_tok",
                            "rms_norm_eps", "max_position_embeddings", "rope_theta"}) {
    Json json = TinyConfig();
    json.erase(field);
    EXPECT_THAT(Refusal([&] { Parse(json); }),
                AllOf(HasSubstr("config.json: "), HasSubstr(field), HasSubstr("is missing")))
        << field;
    for (const Json& value : {Json(-1), Json("many"), Json(true), Json(uint64_t{1} << 63)})
      EXPECT_THAT(RefusalWith(field, value),
                  AllOf(HasSubstr("config.json: "), HasSubstr(field), HasSubstr("it must be")))
          << field << " " << value;
  }
  EXPECT_THAT(RefusalWith("num_key_value_heads", 3), HasSubstr("a divisor of num_attention_heads"));
  EXPECT_THAT(RefusalWith("num_experts_per_tok", 17), HasSubstr("an integer in [1, 16]"));
  EXPECT_THAT(RefusalWith("mlp_only_layers", {4}), HasSubstr("layer numbers in [0, 3]"));
  EXPECT_THAT(RefusalWith("decoder_sparse_step", 0), HasSubstr("decoder_sparse_step is 0"));
  EXPECT_THAT(RefusalWith("torch_dtype", "int8"),
              HasSubstr("auto, bfloat16, float16, half, float32 or float"));
  EXPECT_THAT(RefusalWith("rope_theta", 0), HasSubstr("rope_theta is 0"));
  EXPECT_THAT(RefusalWith("num_key_value_heads", "many"), HasSubstr("an integer in"));
}

TEST(ModelConfig, RefusesSpellingsThatContradictEachOther) {
  EXPECT_THAT(RefusalWith("num_local_experts", 8), HasSubstr("equal to num_experts, which is 16"));
  EXPECT_THAT(RefusalWith("dtype", "float32"), HasSubstr("torch_dtype is \"bfloat16\""));
  EXPECT_THAT(RefusalWith("rope_parameters", {{"rope_theta", 5.0}}),
              HasSubstr("the same as rope_parameters.rope_theta"));
}

TEST(ModelConfig, RefusesSizesWhoseProductsNoMachineHolds) {
  Json json = TinyConfig();
  json["num_experts"] = 65536;
  json["moe_intermediate_size"] = 1048576;
  json["hidden_size"] = 262144;
  EXPECT_THAT(Refusal([&] { Parse(json); }), HasSubstr("parameters; at most"));
}

TEST(ModelConfig, ReadsYarnInBothSpellings) {
  const Json scaling = {{"factor", 4.0}, {"original_max_position_embeddings", 128}};
  Json older = TinyConfig();
  older["rope_scaling"] = scaling;
  older["rope_scaling"]["type"] = "yarn";
  Json newer = TinyConfig();
  newer.erase("rope_theta");
  newer["rope_parameters"] = scaling;
  newer["rope_parameters"]["rope_type"] = "yarn";
  newer["rope_parameters"]["rope_theta"] = 1e6;
  const RopeConfig rope = Parse(older).rope;
  EXPECT_EQ(rope, Parse(newer).rope);
  EXPECT_EQ(rope.type, RopeType::kYarn);
  EXPECT_EQ(rope.factor, 4.0);
  EXPECT_EQ(rope.original_max_positions, 128);
  EXPECT_TRUE(rope.truncate);
  older["rope_scaling"].erase("factor");
  EXPECT_EQ(Parse(older).rope.factor, 4.0);  // 512 / 128
  older["rope_scaling"]["factor"] = 0.5;
  EXPECT_THAT(Refusal([&] { Parse(older); }), HasSubstr("rope_scaling.factor is 0.5"));
}

TEST(ModelConfig, ReadsLlama3ScalingAndPartialRotation) {
  Json json = TinyConfig();
  json["rope_scaling"] = {{"rope_type", "llama3"},
                          {"factor", 8.0},
                          {"low_freq_factor", 1.0},
                          {"high_freq_factor", 4.0},
                          {"original_max_position_embeddings", 32}};
  json["partial_rotary_factor"] = 0.5;
  const RopeConfig rope = Parse(json).rope;
  EXPECT_EQ(rope.type, RopeType::kLlama3);
  EXPECT_EQ(rope.high_freq_factor, 4.0);
  EXPECT_EQ(rope.rotary_fraction, 0.5);
  json["rope_scaling"]["high_freq_factor"] = 0.5;
  EXPECT_THAT(Refusal([&] { Parse(json); }), HasSubstr("at least low_freq_factor"));
}

TEST(ModelConfig, RefusesWhatIsNoFolder) {
  const TestFolder folder;
  folder.Write("config.json", DumpJson(TinyConfig()));
  EXPECT_EQ(ReadModelConfig(folder.path()), Parse(TinyConfig()));
  EXPECT_THAT(Refusal([&] { ReadModelConfig(folder.path() + "/none"); }),
              HasSubstr("no such folder"));
  EXPECT_THAT(Refusal([&] { ReadModelConfig(folder.path() + "/config.json"); }),
              HasSubstr("is a file"));
}

}  // namespace
}  // namespace wideload::checkpoint
