#include "checkpoint/expert_layers.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <filesystem>

#include "base/file.h"
#include "base/json.h"

namespace wideload::checkpoint {
namespace {

using testing::ElementsAre;

// A folder with a config.json and no weights.
class ExpertLayersTest : public testing::Test {
 protected:
  ExpertLayersTest() {
    std::string name = (std::filesystem::temp_directory_path() / "expert-layers-XXXXXX").string();
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  ~ExpertLayersTest() override { std::filesystem::remove_all(folder_); }

  ExpertLayers Find(const Json& more = Json::object()) {
    Json config{{"architectures", {"AnyForCausalLM"}},
                {"vocab_size", 32},
                {"hidden_size", 64},
                {"num_hidden_layers", 6},
                {"num_attention_heads", 4},
                {"num_key_value_heads", 4},
                {"intermediate_size", 128},
                {"moe_intermediate_size", 32},
                {"num_experts", 8},
                {"num_experts_per_tok", 2},
                {"max_position_embeddings", 64},
                {"rms_norm_eps", 1e-6},
                {"rope_theta", 10000},
                {"torch_dtype", "bfloat16"}};
    config.update(more);
    WriteFileWhole(folder_ + "/config.json", config.dump());
    return FindExpertLayers(folder_, ReadModelConfig(folder_));
  }

  std::string folder_;
};

TEST_F(ExpertLayersTest, LeavesOutTheDenseLayersOfEveryFamily) {
  EXPECT_THAT(Find().layers, ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(Find({{"first_k_dense_replace", 3}}).layers, ElementsAre(3, 4, 5));
  EXPECT_THAT(Find({{"first_k_dense_replace", 1}, {"moe_layer_freq", 2}}).layers,
              ElementsAre(2, 4));
  EXPECT_THAT(Find({{"interleave_moe_layer_step", 2}}).layers, ElementsAre(1, 3, 5));
  EXPECT_THAT(Find({{"moe_layers", {1, 4}}}).layers, ElementsAre(1, 4));
  EXPECT_THAT(Find({{"decoder_sparse_step", 2}, {"mlp_only_layers", {3}}}).layers,
              ElementsAre(1, 5));
}

TEST_F(ExpertLayersTest, NumbersPredictionLayersOn) {
  EXPECT_THAT(Find({{"num_nextn_predict_layers", 2}}).extra_layers, ElementsAre(6, 7));
}

TEST_F(ExpertLayersTest, ReckonsBytesByTheQuantization) {
  const uint64_t weights = 3 * 64 * 32;
  const ExpertLayers plain = Find();
  EXPECT_EQ(plain.expert_bytes, 2 * weights);
  EXPECT_FALSE(plain.from_weights);
  EXPECT_EQ(Find({{"quantization_config", {{"quant_method", "fp8"}}}}).expert_bytes, weights);
  EXPECT_EQ(Find({{"quantization_config", {{"quant_method", "mxfp4"}}}}).expert_bytes,
            weights * 17 / 32);
  EXPECT_EQ(Find({{"quantization_config", {{"quant_method", "awq"}, {"bits", 4}}}}).expert_bytes,
            weights * (4 * 128 + 16 + 4) / 128 / 8);  // a scale and a zero point per 128
}

TEST(FindExpertLayers, CountsTheBytesOfTheWeightsWhereTheyAre) {
  const char* source = std::getenv("WIDELOAD_SOURCE_DIR");
  ASSERT_NE(source, nullptr);
  const std::string folder = std::string(source) + "/testdata/models/tiny-qwen3-moe";
  const ModelConfig config = ReadModelConfig(folder);
  const ExpertLayers found = FindExpertLayers(folder, config);
  EXPECT_TRUE(found.from_weights);
  EXPECT_THAT(found.layers, ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(found.expert_bytes,
            static_cast<uint64_t>(3 * 2 * config.hidden_size * config.moe_intermediate_size));
}

}  // namespace
}  // namespace wideload::checkpoint
