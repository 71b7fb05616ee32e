// The same model in another spelling of its checkpoint gives the same bytes, on one rank and on
// random layouts.
#include <gtest/gtest.h>

#include "checkpoint/testing.h"
#include "model/registry.h"
#include "support/random_layout.h"
#include "support/random_model.h"
#include "support/test_data.h"
#include "support/test_engine.h"

namespace wideload {
namespace {

using checkpoint::EditedModel;
using compute::KernelSet;

constexpr uint64_t kSeed = 11;
constexpr size_t kNumRequests = 4;
constexpr uint64_t kNumLayouts = 3;

std::string Tiny(const std::string& name) {
  return testing_support::SourcePath("testdata/models/" + name);
}

// Compares the two models by bytes for every kernel set.
void ExpectSame(const std::string& folder, const EditedModel& other) {
  const std::string path = testing_support::TemporaryFolder("spelling");
  other.Write(path);
  for (const KernelSet kernels : compute::SupportedKernelSets()) {
    const auto model = testing_support::LoadTestModel(folder, kernels);
    const auto same = testing_support::LoadTestModel(path, kernels);
    EXPECT_EQ(model.model->weight_bytes(), same.model->weight_bytes());
    const auto requests = testing_support::DrawRequests(model, kNumRequests, kSeed);
    const auto expected = testing_support::RunRequests(
        *model.model, testing_support::TestOptions(model.config, kernels), requests);
    EXPECT_TRUE(testing_support::RunRequests(*same.model,
                                             testing_support::TestOptions(same.config, kernels),
                                             requests) == expected)
        << KernelSetName(kernels);
    for (uint64_t seed = kSeed; seed < kSeed + kNumLayouts; ++seed)
      EXPECT_EQ(
          CompareLayout(same, testing_support::DrawLayout(same, kernels, requests.size(), seed),
                        requests, expected),
          "");
  }
}

// Kimi K2.5: the language model inside one of several modalities.
TEST(Spellings, OfALanguageModelInsideAnother) {
  const std::string folder = Tiny("tiny-kimi-k2-int4");
  EditedModel model(folder);
  model.Rename([](const std::string& name) { return "language_model." + name; });
  model.tensors["vision_tower.patch_embed.weight"] = {
      .dtype = DType::kF32, .shape = {1}, .bytes = std::vector<std::byte>(4)};
  model.config = {{"architectures", {"KimiK25ForConditionalGeneration"}},
                  {"model_type", "kimi_k25"},
                  {"vision_config", {{"hidden_size", 8}}},
                  {"text_config", model.config}};
  ExpectSame(folder, model);
}

// Experts as transformers 5 may store those of any family: all of a layer in two tensors.
TEST(Spellings, OfFusedExperts) {
  for (const char* name : {"tiny-qwen3-moe", "tiny-qwen2-moe", "tiny-olmoe", "tiny-mixtral",
                           "tiny-glm4-moe", "tiny-deepseek-v3"}) {
    const model::ModelSpec spec = model::ReadModel(Tiny(name)).spec;
    EditedModel model(Tiny(name));
    const int64_t experts = spec.moe.num_experts;
    for (const int32_t layer : spec.moe.layers) {
      const std::string prefix = LayerPrefix(spec.names, layer) + spec.names.experts;
      std::vector<std::string> gate_up, down;
      for (int64_t e = 0; e < experts; ++e) {
        const auto weight = [&](const std::string& part) {
          return fmt::format("{}{}.{}.weight", prefix, e, part);
        };
        gate_up.insert(gate_up.end(), {weight(spec.names.gate), weight(spec.names.up)});
        down.push_back(weight(spec.names.down));
      }
      const int64_t width = spec.experts.width;
      model.Fuse(gate_up, prefix + "gate_up_proj", {experts, 2 * width, spec.hidden});
      model.Fuse(down, prefix + "down_proj", {experts, spec.hidden, width});
    }
    SCOPED_TRACE(name);
    ExpectSame(Tiny(name), model);
  }
}

}  // namespace
}  // namespace wideload
