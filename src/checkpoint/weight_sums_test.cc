#include "checkpoint/inspection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "checkpoint/test_folder.h"

namespace wideload::checkpoint {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::array<std::string_view, 1> kSupported = {"Qwen3MoeForCausalLM"};

TEST(Inspection, AddsUpTheTinyModel) {
  const Inspection inspection = InspectFolder(TinyQwen3Moe(), kSupported);
  EXPECT_THAT(inspection.unsupported, IsEmpty());
  EXPECT_EQ(inspection.num_files, 4);
  EXPECT_EQ(inspection.total_bytes, 1074816U);
  EXPECT_EQ(inspection.parameters, 537408U);  // the index's own metadata.total_parameters
  std::map<std::string, uint64_t> parameters;
  for (const PartSum& part : inspection.parts) parameters[part.name] = part.parameters;
  EXPECT_EQ(parameters["embeddings"], 320U * 64);
  EXPECT_EQ(parameters["lm_head"], 320U * 64);
  EXPECT_EQ(parameters["experts"], 4U * 16 * 3 * 64 * 32);
  EXPECT_EQ(parameters["router"], 4U * 16 * 64);
  EXPECT_EQ(parameters["attention"], 4U * (64 * 32 * (4 + 2 + 2 + 4) + 2 * 32));
  EXPECT_EQ(parameters["norms"], 64U * (2 * 4 + 1));
  EXPECT_EQ(parameters.size(), 6U);
  EXPECT_EQ(inspection.active_parameters, 537408U - 320 * 64 - 4 * 12 * 3 * 64 * 32);
  EXPECT_EQ(inspection.KvBytesPerToken(), 4U * 2 * 2 * 32 * 2);
  EXPECT_EQ(inspection.bytes_of_dtype.at("BF16"), 1074816U);
}

TEST(Inspection, GroupsTensorsThatDifferInTheirNumbersOnly) {
  const Inspection inspection = InspectFolder(TinyQwen3Moe(), kSupported);
  const auto group = std::find_if(
      inspection.shapes.begin(), inspection.shapes.end(), [](const ShapeGroup& candidate) {
        return candidate.pattern == "model.layers.*.mlp.experts.*.down_proj.weight";
      });
  ASSERT_NE(group, inspection.shapes.end());
  EXPECT_EQ(group->count, 64);
  EXPECT_EQ(group->shape, Shape({64, 32}));
}

TEST(Inspection, NamesPartsAcrossFamilies) {
  EXPECT_EQ(PartOf("model.layers.0.block_sparse_moe.experts.3.w1.weight", 4), "experts");
  EXPECT_EQ(PartOf("model.layers.0.block_sparse_moe.gate.weight", 4), "router");
  EXPECT_EQ(PartOf("model.layers.0.mlp.shared_experts.up_proj.weight", 4), "shared experts");
  EXPECT_EQ(PartOf("model.layers.0.mlp.gate_proj.weight", 4), "dense MLP");
  EXPECT_EQ(PartOf("model.layers.0.self_attn.q_norm.weight", 4), "attention");
  EXPECT_EQ(PartOf("model.layers.4.self_attn.q_proj.weight", 4), "extra prediction layers");
  EXPECT_EQ(PartOf("language_model.model.layers.1.feed_forward.router.weight", 4), "router");
  EXPECT_EQ(PartOf("vision_model.layers.9.self_attn.q_proj.weight", 4), "other");
}

TEST(Inspection, ReportsAnArchitectureNobodyKnows) {
  const TestFolder folder;
  const float value = 1.0F;
  const std::pair<std::string, TensorView> tensors[] = {
      {"wte.weight", TensorView(DType::kF32, {1}, &value)}};
  WriteSafetensors(folder.path() + "/model.safetensors", tensors);
  folder.Write("config.json", R"({"architectures":["GPT2LMHeadModel"],"n_embd":768})");
  const Inspection inspection = InspectFolder(folder.path(), kSupported);
  EXPECT_THAT(inspection.unsupported,
              ElementsAre(AllOf(HasSubstr("GPT2LMHeadModel"), HasSubstr("Qwen3MoeForCausalLM")),
                          HasSubstr("vocab_size is missing")));
  EXPECT_FALSE(inspection.config.has_value());
  folder.Write("config.json", R"({"architectures":["Qwen3MoeForCausalLM"],"n_embd":768})");
  EXPECT_THAT(Refusal([&] { InspectFolder(folder.path(), kSupported); }),
              HasSubstr("vocab_size is missing"));
}

TEST(Inspection, ReadsEveryPublishedFamily) {
  if (!IsDirectory(SharedModels())) GTEST_SKIP() << SharedModels() << " is not there";
  int num_supported = 0;
  for (const auto& folder : std::filesystem::directory_iterator(SharedModels())) {
    if (!FileExists(folder.path().string() + "/config.json")) continue;
    const Inspection inspection = InspectFolder(folder.path().string(), kSupported);
    num_supported += inspection.unsupported.empty() ? 1 : 0;
    EXPECT_GT(inspection.parameters, 0U);
    EXPECT_GT(inspection.active_parameters, 0U);
    EXPECT_LE(inspection.active_parameters, inspection.parameters);
  }
  EXPECT_EQ(num_supported, 2);  // tiny-qwen3-moe and wideload-14m
}

}  // namespace
}  // namespace wideload::checkpoint
