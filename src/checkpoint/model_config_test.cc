#include "checkpoint/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "checkpoint/test_folder.h"

namespace wideload::checkpoint {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Json TinyConfig() { return ReadJsonFile(TinyQwen3Moe() + "/config.json"); }

ModelConfigReading Parse(const Json& json) {
  return ParseModelConfig(DumpJson(json), "config.json");
}

// What is said about the tiny config with one field changed.
std::string RefusalWith(const std::string& field, const Json& value) {
  Json json = TinyConfig();
  json[field] = value;
  return Refusal([&] { Parse(json); });
}

// The one unsupported feature reported about the tiny config with one field changed.
std::string UnsupportedWith(const std::string& field, const Json& value) {
  Json json = TinyConfig();
  json[field] = value;
  const ModelConfigReading reading = Parse(json);
  return reading.unsupported.size() == 1 ? reading.unsupported[0]
                                         : fmt::format("{} reasons", reading.unsupported.size());
}

TEST(ModelConfig, BothSpellingsOfTransformersSayTheSame) {
  const ModelConfigReading older = InspectModelConfig(TinyQwen3Moe());
  const ModelConfigReading newer =
      Parse(ReadJsonFile(TinyQwen3Moe() + "/config.transformers5.json"));
  EXPECT_EQ(older.config, newer.config);
  EXPECT_TRUE(older.unsupported.empty());
  EXPECT_TRUE(newer.unsupported.empty());
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
  EXPECT_TRUE(config.norm_topk_prob);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.max_position_embeddings, 512);
  EXPECT_EQ(config.rope, RopeConfig{.theta = 1e6});
  EXPECT_EQ(config.dtype, DType::kBF16);
  EXPECT_TRUE(config.eos_ids.empty());
  EXPECT_FALSE(config.bos_id.has_value());
}

TEST(ModelConfig, SparseStepAndMlpOnlyLayersChooseTheMoeLayers) {
  Json json = TinyConfig();
  json["num_hidden_layers"] = 6;
  json["decoder_sparse_step"] = 2;
  json["mlp_only_layers"] = {3, 3, 0};
  const ModelConfig config = Parse(json).config;
  std::vector<int64_t> moe_layers;
  for (int64_t layer = 0; layer < 6; ++layer)
    if (config.IsMoeLayer(layer)) moe_layers.push_back(layer);
  EXPECT_THAT(moe_layers, ElementsAre(1, 5));
  EXPECT_EQ(config.NumMoeLayers(), 2);
}

TEST(ModelConfig, DerivesHeadDimFromHiddenSizeWhenAbsent) {
  Json json = TinyConfig();
  json.erase("head_dim");
  EXPECT_EQ(Parse(json).config.head_dim, 16);
  json["num_attention_heads"] = 6;
  EXPECT_THAT(Refusal([&] { Parse(json); }), HasSubstr("head_dim is missing"));
}

TEST(ModelConfig, EosIsOneIdOrSeveral) {
  Json json = TinyConfig();
  json["eos_token_id"] = 7;
  EXPECT_THAT(Parse(json).config.eos_ids, ElementsAre(7));
  json["eos_token_id"] = {7, 9, 7};
  EXPECT_THAT(Parse(json).config.eos_ids, ElementsAre(7, 9));
  EXPECT_THAT(RefusalWith("eos_token_id", {7, -1}), HasSubstr("eos_token_id is [7,-1]"));
  EXPECT_THAT(RefusalWith("eos_token_id", "x"), HasSubstr("eos_token_id is \"x\""));
}

TEST(ModelConfig, RefusesMissingAndImpossibleFieldsByName) {
  for (const char* field :
       {"architectures", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "num_experts", "num_experts_per_tok", "moe_intermediate_size",
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
  EXPECT_THAT(RefusalWith("head_dim", 33), HasSubstr("must be even"));
  EXPECT_THAT(RefusalWith("mlp_only_layers", {4}), HasSubstr("layer numbers in [0, 3]"));
  EXPECT_THAT(RefusalWith("decoder_sparse_step", 0), HasSubstr("decoder_sparse_step is 0"));
  EXPECT_THAT(RefusalWith("torch_dtype", "int8"), HasSubstr("bfloat16, float16 or float32"));
  EXPECT_THAT(RefusalWith("rope_theta", 0), HasSubstr("rope_theta is 0"));
  EXPECT_THAT(RefusalWith("norm_topk_prob", 1), HasSubstr("true or false"));
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
  const RopeConfig rope = Parse(older).config.rope;
  EXPECT_EQ(rope, Parse(newer).config.rope);
  EXPECT_EQ(rope.type, RopeType::kYarn);
  EXPECT_EQ(rope.factor, 4.0);
  EXPECT_EQ(rope.original_max_positions, 128);
  EXPECT_TRUE(rope.truncate);
  older["rope_scaling"].erase("factor");
  EXPECT_EQ(Parse(older).config.rope.factor, 4.0);  // 512 / 128
  older["rope_scaling"]["factor"] = 0.5;
  EXPECT_THAT(Refusal([&] { Parse(older); }), HasSubstr("rope_scaling.factor is 0.5"));
}

TEST(ModelConfig, NamesWhatItCannotExpress) {
  EXPECT_THAT(UnsupportedWith("quantization_config", {{"quant_method", "fp8"}}),
              AllOf(HasSubstr("quantization_config"), HasSubstr("fp8")));
  EXPECT_THAT(UnsupportedWith("rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}),
              HasSubstr("rope_scaling.type is \"dynamic\""));
  EXPECT_THAT(UnsupportedWith("attention_bias", true), HasSubstr("attention_bias is true"));
  EXPECT_THAT(UnsupportedWith("use_sliding_window", true), HasSubstr("use_sliding_window is true"));
  EXPECT_THAT(UnsupportedWith("hidden_act", "gelu"), HasSubstr("hidden_act is \"gelu\""));
  EXPECT_THAT(UnsupportedWith("kv_lora_rank", 32), HasSubstr("multi-head latent attention"));
  EXPECT_THAT(UnsupportedWith("scoring_func", "sigmoid"), HasSubstr("scoring_func"));
  EXPECT_THAT(UnsupportedWith("partial_rotary_factor", 0.5), HasSubstr("partial_rotary_factor"));
  EXPECT_THAT(
      UnsupportedWith("layer_types", {"full_attention", "linear_attention", "x", "full_attention"}),
      HasSubstr("linear_attention"));
  EXPECT_THAT(UnsupportedWith("partial_rotary_factor", 1), "0 reasons");
  EXPECT_THAT(UnsupportedWith("sliding_window", 4096), "0 reasons");  // use_sliding_window is false
}

TEST(ModelConfig, RefusesToRunWhatItCannotExpress) {
  const TestFolder folder;
  Json json = TinyConfig();
  json["attention_bias"] = true;
  folder.Write("config.json", DumpJson(json));
  EXPECT_THAT(Refusal([&] { ReadModelConfig(folder.path()); }),
              AllOf(HasSubstr("Qwen3MoeForCausalLM"), HasSubstr("attention_bias is true")));
  EXPECT_THAT(Refusal([&] { ReadModelConfig(folder.path() + "/none"); }),
              HasSubstr("no such folder"));
  EXPECT_THAT(Refusal([&] { ReadModelConfig(folder.path() + "/config.json"); }),
              HasSubstr("is a file"));
}

TEST(ModelConfig, ReadsOrRefusesEveryPublishedFamilyByNamedReasons) {
  if (!IsDirectory(SharedModels())) GTEST_SKIP() << SharedModels() << " is not there";
  int num_read = 0;
  for (const auto& folder : std::filesystem::directory_iterator(SharedModels())) {
    const std::string older = folder.path().string() + "/config.json";
    const std::string newer = folder.path().string() + "/config.transformers5.json";
    if (!FileExists(older)) continue;
    ++num_read;
    const ModelConfigReading reading = ParseModelConfig(ReadFile(older), older);
    const std::string& architecture = reading.config.architecture;
    const bool is_plain = architecture.starts_with("Qwen3") || architecture.starts_with("Olmoe") ||
                          architecture.starts_with("Mixtral");
    EXPECT_EQ(reading.unsupported.empty(), is_plain) << older;
    for (const std::string& reason : reading.unsupported)
      EXPECT_THAT(reason, HasSubstr("config.json: "));
    // With latent attention only the newer spelling gives a head_dim, and it means another thing.
    if (!FileExists(newer) || architecture.starts_with("Deepseek")) continue;
    EXPECT_EQ(reading.config, ParseModelConfig(ReadFile(newer), newer).config) << older;
  }
  EXPECT_GE(num_read, 16);
}

}  // namespace
}  // namespace wideload::checkpoint
