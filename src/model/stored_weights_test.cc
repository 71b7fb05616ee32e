// What is said of checkpoints whose tensors are not those that a model needs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "checkpoint/test_folder.h"
#include "checkpoint/testing.h"
#include "model/inspection.h"

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

}  // namespace
}  // namespace wideload::model
