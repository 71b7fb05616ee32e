#include "checkpoint/weight_sums.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "checkpoint/test_folder.h"

namespace wideload::checkpoint {
namespace {

using ::testing::HasSubstr;

WeightSums SumsOf(const std::string& folder) {
  const ModelConfig config = ReadModelConfig(folder);
  return SumWeights(Checkpoint(folder), &config);
}

TEST(WeightSums, AddUpTheTinyModel) {
  const WeightSums sums = SumsOf(TinyQwen3Moe());
  EXPECT_EQ(sums.num_files, 4);
  EXPECT_EQ(sums.total_bytes, 1074816U);
  EXPECT_EQ(sums.parameters, 537408U);  // the index's own metadata.total_parameters
  std::map<std::string, uint64_t> parameters;
  for (const PartSum& part : sums.parts) parameters[part.name] = part.parameters;
  EXPECT_EQ(parameters["embeddings"], 320U * 64);
  EXPECT_EQ(parameters["lm_head"], 320U * 64);
  EXPECT_EQ(parameters["experts"], 4U * 16 * 3 * 64 * 32);
  EXPECT_EQ(parameters["router"], 4U * 16 * 64);
  EXPECT_EQ(parameters["attention"], 4U * (64 * 32 * (4 + 2 + 2 + 4) + 2 * 32));
  EXPECT_EQ(parameters["norms"], 64U * (2 * 4 + 1));
  EXPECT_EQ(parameters.size(), 6U);
  EXPECT_EQ(sums.active_parameters, 537408U - 320 * 64 - 4 * 12 * 3 * 64 * 32);
  EXPECT_EQ(sums.bytes_of_dtype.at("BF16"), 1074816U);
}

TEST(WeightSums, GroupsTensorsThatDifferInTheirNumbersOnly) {
  const WeightSums sums = SumsOf(TinyQwen3Moe());
  const auto group =
      std::find_if(sums.shapes.begin(), sums.shapes.end(), [](const ShapeGroup& candidate) {
        return candidate.pattern == "model.layers.*.mlp.experts.*.down_proj.weight";
      });
  ASSERT_NE(group, sums.shapes.end());
  EXPECT_EQ(group->count, 64);
  EXPECT_EQ(group->shape, Shape({64, 32}));
}

TEST(WeightSums, NamesPartsAcrossFamilies) {
  EXPECT_EQ(PartOf("model.layers.0.block_sparse_moe.experts.3.w1.weight", 4), "experts");
  EXPECT_EQ(PartOf("model.layers.0.block_sparse_moe.gate.weight", 4), "router");
  EXPECT_EQ(PartOf("model.layers.0.mlp.shared_experts.up_proj.weight", 4), "shared experts");
  EXPECT_EQ(PartOf("model.layers.0.mlp.gate_proj.weight", 4), "dense MLP");
  EXPECT_EQ(PartOf("model.layers.0.self_attn.q_norm.weight", 4), "attention");
  EXPECT_EQ(PartOf("model.layers.4.self_attn.q_proj.weight", 4), "extra prediction layers");
  EXPECT_EQ(PartOf("language_model.model.layers.1.feed_forward.router.weight", 4), "router");
  EXPECT_EQ(PartOf("vision_model.layers.9.self_attn.q_proj.weight", 4), "other");
}

TEST(WeightSums, CountActiveParametersOfEveryFamily) {
  for (const auto& entry : std::filesystem::directory_iterator(SourceDir() + "/testdata/models")) {
    if (!FileExists(entry.path().string() + "/config.json")) continue;
    const WeightSums sums = SumsOf(entry.path().string());
    EXPECT_GT(sums.active_parameters, 0U) << entry.path();
    EXPECT_LE(sums.active_parameters, sums.parameters) << entry.path();
    const bool has_other =
        std::ranges::any_of(sums.parts, [](const PartSum& part) { return part.name == "other"; });
    EXPECT_EQ(has_other, entry.path().string().ends_with("conditional")) << entry.path();
  }
}

}  // namespace
}  // namespace wideload::checkpoint
