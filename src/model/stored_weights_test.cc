// What is said of checkpoints whose tensors are not those that a model needs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "checkpoint/test_folder.h"
#include "checkpoint/testing.h"
#include "model/inspection.h"
#include "model/transformer.h"

namespace wideload::model {
namespace {

using checkpoint::EditedModel;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// The reasons against a tiny model after `edit`.
std::vector<std::string> ReasonsAfter(const std::string& name,
                                      const std::function<void(EditedModel&)>& edit) {
  const checkpoint::TestFolder folder;
  EditedModel model(checkpoint::SourceDir() + "/testdata/models/" + name);
  edit(model);
  model.Write(folder.path());
  return InspectFolder(folder.path()).reasons;
}

const std::string kKimi = "tiny-kimi-k2-int4";
const std::string kFp8 = "tiny-deepseek-v3-fp8";
const std::string kExpert = "model.layers.1.mlp.experts.0.gate_proj.weight";

TEST(StoredWeights, AreTakenAsTheyAre) {
  for (const std::string& name : {kKimi, kFp8})
    EXPECT_THAT(ReasonsAfter(name, [](EditedModel&) {}), IsEmpty()) << name;
}

TEST(StoredWeights, Int4NeedsItsShapeAndScalesAndNothingElse) {
  const auto without = [](const std::string& part) {
    return ReasonsAfter(kKimi, [&](EditedModel& m) { m.tensors.erase(kExpert + part); });
  };
  EXPECT_THAT(without("_shape"), ElementsAre(HasSubstr(kExpert + "_shape")));
  EXPECT_THAT(without("_scale"), ElementsAre(HasSubstr(kExpert + "_scale")));
  EXPECT_THAT(without("_packed"), ElementsAre(AllOf(HasSubstr("no tensor " + kExpert + "_packed"),
                                                    HasSubstr("it holds " + kExpert + "_scale"))));
  EXPECT_THAT(ReasonsAfter(kKimi,
                           [](EditedModel& m) {
                             auto& shape = m.tensors.at(kExpert + "_shape");
                             (shape.dtype == DType::kI64 ? shape.bytes[8] : shape.bytes[4]) ^=
                                 std::byte{1};
                           }),
              ElementsAre(AllOf(HasSubstr(kExpert + "_shape"), HasSubstr("it must hold"))));
  for (const char* more : {"_g_idx", "_zero_point"})
    EXPECT_THAT(ReasonsAfter(kKimi,
                             [&](EditedModel& m) {
                               m.tensors[kExpert + more] = m.tensors.at(kExpert + "_shape");
                             }),
                ElementsAre(HasSubstr(kExpert + more)));
}

TEST(StoredWeights, Fp8NeedsItsScalesAndScalesTheirValues) {
  EXPECT_THAT(ReasonsAfter(kFp8, [](EditedModel& m) { m.tensors.erase(kExpert + "_scale_inv"); }),
              ElementsAre(AllOf(HasSubstr("no tensor " + kExpert + "_scale_inv"),
                                HasSubstr("it holds " + kExpert))));
  EXPECT_THAT(ReasonsAfter(kFp8, [](EditedModel& m) { m.tensors.erase(kExpert); }),
              ElementsAre(AllOf(HasSubstr("no tensor " + kExpert + ", "),
                                HasSubstr("it holds " + kExpert + "_scale_inv"))));
}

TEST(StoredWeights, EveryReasonIsNamedAtOnceAndTensorsAlikeTogether) {
  const auto reasons = ReasonsAfter("tiny-qwen3-moe", [](EditedModel& m) {
    std::erase_if(m.tensors, [](const auto& tensor) {
      return tensor.first.find("mlp.gate.weight") != std::string::npos ||
             tensor.first.find("experts.3.up_proj") != std::string::npos;
    });
    m.tensors.at("model.norm.weight").shape = {1, m.tensors.at("model.norm.weight").shape[0]};
    m.tensors.at("model.layers.0.self_attn.q_proj.weight").dtype = DType::kI16;
  });
  EXPECT_THAT(reasons, SizeIs(4));
  EXPECT_THAT(reasons, Contains(AllOf(HasSubstr("layers.0.mlp.gate.weight"),
                                      HasSubstr("(and 3 more like it)"))));
  EXPECT_THAT(reasons, Contains(AllOf(HasSubstr("experts.3.up_proj.weight"),
                                      HasSubstr("(and 3 more like it)"))));
  EXPECT_THAT(reasons, Contains(HasSubstr("model.norm.weight has the shape [1, ")));
  EXPECT_THAT(reasons, Contains(AllOf(HasSubstr("q_proj.weight"), HasSubstr("I16"))));
}

// A run is refused with the same words, before anything is read.
TEST(StoredWeights, MeasuringALoadThrowsEveryReason) {
  const checkpoint::TestFolder folder;
  EditedModel model(checkpoint::SourceDir() + "/testdata/models/tiny-qwen3-moe");
  model.tensors.erase("model.norm.weight");
  model.tensors.erase("lm_head.weight");
  model.Write(folder.path());
  checkpoint::Checkpoint weights(folder.path());
  WeightLoader loader(weights, {.mode = LoadMode::kMeasure});
  EXPECT_THAT(checkpoint::Refusal([&] { LoadTransformer(ReadModel(folder.path()).spec, loader); }),
              AllOf(HasSubstr("model.norm.weight"), HasSubstr("lm_head.weight")));
}

TEST(StoredWeights, ScalesMustBeFiniteNumbers) {
  const auto nan = std::numeric_limits<float>::quiet_NaN();
  const auto infinite = std::numeric_limits<float>::infinity();
  for (const float bad : {nan, infinite}) {
    EXPECT_THAT(ReasonsAfter(kFp8,
                             [&](EditedModel& m) {
                               auto& scales = m.tensors.at(kExpert + "_scale_inv");
                               ASSERT_EQ(scales.dtype, DType::kF32);
                               scales.data<float>()[0] = bad;
                             }),
                ElementsAre(AllOf(HasSubstr(kExpert), HasSubstr("must be finite"))));
    EXPECT_THAT(ReasonsAfter(kKimi,
                             [&](EditedModel& m) {
                               auto& scales = m.tensors.at(kExpert + "_scale");
                               ASSERT_EQ(scales.dtype, DType::kBF16);
                               scales.data<BF16>()[2] = ToBF16(bad);
                             }),
                ElementsAre(AllOf(HasSubstr(kExpert), HasSubstr("must be finite"))));
  }
  EXPECT_THAT(ReasonsAfter("tiny-gpt-oss-mxfp4",
                           [&](EditedModel& m) {
                             m.tensors.at("model.layers.0.mlp.experts.down_proj_scales").bytes[3] =
                                 std::byte{0xff};
                           }),
              ElementsAre(AllOf(HasSubstr("down_proj_blocks"), HasSubstr("is nan"))));
}

}  // namespace
}  // namespace wideload::model
