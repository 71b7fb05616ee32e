// Whole models against logits of an independent implementation, for every kernel set this machine
// can run.
#include <gtest/gtest.h>

#include <cmath>

#include "support/test_data.h"
#include "support/test_engine.h"
#include "tensor/safetensors.h"

namespace wideload {
namespace {

using compute::KernelSet;
using testing_support::Outcome;
using testing_support::TestModel;

// The reference kernels and the golden file both compute in fp32 and differ in the order of sums:
// 1e-3 on logits of standard deviation 1 and above is what that can make.
constexpr double kReferenceTolerance = 1e-3;
// Other kernel sets round weights and rows to bf16 where the golden file's own bf16 run does; they
// may be 15 % worse than it.
constexpr double kBf16Slack = 1.15;
// Below this distance between the best two logits a bf16 run may choose either.
constexpr float kMinMargin = 0.1F;
// The reference kernels may not: their error is far below this.
constexpr float kMinReferenceMargin = 2e-3F;
// tiny-qwen3-moe, whose weights are random, has a near tie after 8 steps in all.
constexpr size_t kMinCompared = 8;

struct Case {
  std::string folder;
  std::string golden;
  std::string config;
  KernelSet kernels;
};

std::string CaseName(const testing::TestParamInfo<Case>& info) {
  std::string name = info.param.folder + "_" + info.param.config + "_" +
                     std::string(KernelSetName(info.param.kernels));
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const KernelSet kernels : compute::SupportedKernelSets()) {
    for (const char* config : {"config.json", "config.transformers5.json"})
      cases.push_back(
          {"testdata/models/tiny-qwen3-moe", "testdata/models/tiny-qwen3-moe", config, kernels});
    cases.push_back(
        {"models/wideload-14m", "testdata/models/wideload-14m", "config.json", kernels});
  }
  return cases;
}

class Golden : public testing::TestWithParam<Case> {
 protected:
  Golden()
      : golden_(testing_support::SourcePath(GetParam().golden + "/golden.safetensors")),
        loaded_(testing_support::LoadTestModel(testing_support::SourcePath(GetParam().folder),
                                               GetParam().kernels, GetParam().config)) {}

  std::vector<int32_t> Ids(const std::string& name) const {
    const TensorView view = golden_.Get(name);
    return {view.data<int32_t>(), view.data<int32_t>() + view.shape().num_elements()};
  }
  int NumPrompts() const {
    int n = 0;
    while (golden_.Has(fmt::format("input_ids.{}", n))) ++n;
    return n;
  }
  std::vector<Outcome> Run(const std::vector<runtime::Request>& requests) const {
    return testing_support::RunRequests(
        *loaded_.model, testing_support::TestOptions(loaded_.config, GetParam().kernels), requests);
  }

  SafetensorsFile golden_;
  TestModel loaded_;
};

TEST_P(Golden, LogitsAreThoseOfTheIndependentImplementation) {
  std::vector<runtime::Request> requests;
  for (int i = 0; i < NumPrompts(); ++i)
    requests.push_back(
        {.prompt = Ids(fmt::format("input_ids.{}", i)), .max_tokens = 0, .prompt_logits = true});
  ASSERT_GE(requests.size(), 3u);
  const std::vector<Outcome> outcomes = Run(requests);
  const int64_t vocab = loaded_.config.vocab_size;
  double largest = 0, squares = 0, bf16_squares = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const TensorView expected = golden_.Get(fmt::format("logits.{}", i));
    const TensorView bf16 =
        golden_.Get(fmt::format("logits_bf16.{}", i), DType::kF32, expected.shape());
    const int64_t first =
        static_cast<int64_t>(requests[i].prompt.size()) - expected.dim(0);  // the last positions
    ASSERT_EQ(outcomes[i].logits.size(), requests[i].prompt.size() * static_cast<size_t>(vocab))
        << outcomes[i].error;
    for (int64_t j = 0; j < expected.shape().num_elements(); ++j) {
      const double want = expected.data<float>()[j];
      const double error = outcomes[i].logits[static_cast<size_t>(first * vocab + j)] - want;
      const double bf16_error = bf16.data<float>()[j] - want;
      largest = std::max(largest, std::abs(error));
      squares += error * error;
      bf16_squares += bf16_error * bf16_error;
    }
  }
  std::printf("largest error %.3g, RMS error / RMS error of bf16 %.3f\n", largest,
              std::sqrt(squares / bf16_squares));
  if (GetParam().kernels == KernelSet::kReference) {
    EXPECT_LE(largest, kReferenceTolerance);
  } else {
    EXPECT_LE(std::sqrt(squares / bf16_squares), kBf16Slack);
  }
}

TEST_P(Golden, GreedyContinuationsAgreeUpToTheFirstNearTie) {
  std::vector<runtime::Request> requests;
  for (int i = 0; i < NumPrompts(); ++i)
    requests.push_back(
        {.prompt = Ids(fmt::format("input_ids.{}", i)),
         .max_tokens = static_cast<int64_t>(Ids(fmt::format("greedy_ids.{}", i)).size())});
  const std::vector<Outcome> outcomes = Run(requests);
  const float min_margin =
      GetParam().kernels == KernelSet::kReference ? kMinReferenceMargin : kMinMargin;
  size_t compared = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const std::vector<int32_t> expected = Ids(fmt::format("greedy_ids.{}", i));
    const float* margin = golden_.Get(fmt::format("greedy_margin.{}", i)).data<float>();
    ASSERT_EQ(outcomes[i].tokens.size(), expected.size());
    for (size_t j = 0; j < expected.size() && margin[j] >= min_margin; ++j, ++compared)
      ASSERT_EQ(outcomes[i].tokens[j], expected[j]) << "prompt " << i << ", step " << j;
  }
  EXPECT_GE(compared, kMinCompared);
}

TEST_P(Golden, LogprobsOfThePromptAgree) {
  if (!golden_.Has("logprobs.0") || GetParam().kernels != KernelSet::kReference)
    GTEST_SKIP() << "no logprobs or not the fp32 kernels";
  const int64_t vocab = loaded_.config.vocab_size;
  for (int i = 0; i < NumPrompts(); ++i) {
    const std::vector<int32_t> ids = Ids(fmt::format("input_ids.{}", i));
    const Outcome outcome = Run({{.prompt = ids, .max_tokens = 0, .prompt_logits = true}})[0];
    const float* expected = golden_.Get(fmt::format("logprobs.{}", i)).data<float>();
    for (size_t t = 0; t + 1 < ids.size(); ++t) {
      const float* row = outcome.logits.data() + static_cast<int64_t>(t) * vocab;
      double sum = 0;
      for (int64_t v = 0; v < vocab; ++v) sum += std::exp(static_cast<double>(row[v]));
      EXPECT_NEAR(row[ids[t + 1]] - std::log(sum), expected[t], kReferenceTolerance)
          << i << ", " << t;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Golden, testing::ValuesIn(Cases()), CaseName);

}  // namespace
}  // namespace wideload
