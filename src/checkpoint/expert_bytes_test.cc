#include "checkpoint/expert_bytes.h"

#include <gtest/gtest.h>

#include "base/json.h"

namespace wideload::checkpoint {
namespace {

constexpr uint64_t kWeights = 3 * 7168 * 2048;  // DeepSeek-R1's
constexpr double kMiB = 1 << 20;

StoredExpert Of(const std::string& quantization) {
  const Json json = ParseJson("{" + quantization + "}", "config.json");
  return StoredExpertOf(JsonFields(json, "config.json"), kWeights, DType::kBF16);
}

double MiBOf(const std::string& quantization) {
  return static_cast<double>(Of("\"quantization_config\": " + quantization).bytes.value_or(0)) /
         kMiB;
}

TEST(StoredExpert, CountsWeightsAndScalesOfEachMethod) {
  EXPECT_EQ(Of("").bytes, kWeights * 2);
  // 84 MiB in bf16: half for 8 bits, a quarter for 4, and the scales
  EXPECT_NEAR(MiBOf(R"({"quant_method": "fp8", "weight_block_size": [128, 128]})"), 42.01, 0.01);
  EXPECT_NEAR(MiBOf(R"({"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16})"),
              23.62, 0.01);
  EXPECT_NEAR(MiBOf(R"({"quant_method": "modelopt", "quant_algo": "FP8"})"), 42, 0.01);
  EXPECT_NEAR(MiBOf(R"({"quant_method": "mxfp4"})"), 22.31, 0.01);
  EXPECT_NEAR(MiBOf(R"({"quant_method": "compressed-tensors", "config_groups": {"group_0":
      {"weights": {"num_bits": 4, "type": "int", "group_size": 32, "strategy": "group"}}}})"),
              23.62, 0.01);
  EXPECT_NEAR(MiBOf(R"({"quant_method": "compressed-tensors", "config_groups": {"group_0":
      {"weights": {"num_bits": 4, "type": "float", "group_size": 16}}}})"),
              23.62, 0.01);
  EXPECT_NEAR(MiBOf(R"({"quant_method": "gptq", "bits": 4, "group_size": 128})"), 21.82, 0.01);
  EXPECT_NEAR(MiBOf(R"({"quant_method": "awq", "bits": 4, "group_size": 64})"), 22.64, 0.01);
}

TEST(StoredExpert, IsUnknownRatherThanGuessed) {
  for (const char* quantization :
       {R"({"quant_method": "quark"})", R"({"bits": 4})",
        R"({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"})",
        R"({"quant_method": "compressed-tensors"})",
        R"({"quant_method": "compressed-tensors", "config_groups": {
            "a": {"weights": {"num_bits": 4, "type": "int"}},
            "b": {"weights": {"num_bits": 8, "type": "int"}}}})",
        R"({"quant_method": "fp8", "modules_to_not_convert": ["model.layers.0.mlp.experts"]})"}) {
    const StoredExpert expert = Of(std::string("\"quantization_config\": ") + quantization);
    EXPECT_FALSE(expert.bytes.has_value()) << quantization;
    EXPECT_TRUE(expert.storage.starts_with("unknown")) << expert.storage;
  }
  EXPECT_TRUE(MiBOf(R"({"quant_method": "fp8", "ignore": ["model.layers.0.mlp.shared_experts"]})") >
              40);
}

}  // namespace
}  // namespace wideload::checkpoint
