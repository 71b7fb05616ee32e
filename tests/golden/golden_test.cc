// Whole models against logits of an independent implementation, for every kernel set this machine
// can run.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "base/file.h"
#include "golden/kernel_sets.h"
#include "golden/near_tie.h"
#include "statistics/recorder.h"
#include "support/dequantized_model.h"
#include "support/random_model.h"
#include "support/test_data.h"
#include "support/test_device.h"
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
// may be 15 % worse than it. Where weights are quantised there is no such run: there they may be 15
// % worse than themselves with the weights multiplied out.
constexpr double kBf16Slack = 1.15;
// Below this distance between the best two logits a bf16 run may choose either.
constexpr float kMinMargin = 0.1F;
// The reference kernels may not: their error is far below this.
constexpr float kMinReferenceMargin = 2e-3F;
// tiny-qwen3-moe, whose weights are random, has a near tie after 8 steps in all.
constexpr size_t kMinCompared = 8;
// A bf16 run may choose other experts where the router's logits, of standard deviation about 1, are
// this near to another choice: bf16 has steps of 2^-6 between 2 and 4, where the largest lie, and
// rounds the rows of every layer before.
constexpr float kMaxTie = 0x1p-6F;
// Positions of all prompts that must come before the first near tie of a router: the fewest that
// there are (tiny-kimi-k2-int4).
constexpr int64_t kMinPositions = 6;

struct Case {
  std::string folder;
  std::string golden;
  std::string config;
  KernelSet kernels;
};

std::string CaseName(const testing::TestParamInfo<Case>& info) {
  std::string name = info.param.folder.substr(info.param.folder.rfind('/') + 1) + "_" +
                     info.param.config + "_" + std::string(KernelSetName(info.param.kernels));
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

// Every tiny-* folder of testdata/models whose family the kernels have.
std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const KernelSet kernels : testing_support::GoldenKernelSets()) {
    for (const std::string& folder : testing_support::TinyModels()) {
      if (IsOnDevice(kernels) && !folder.ends_with("tiny-qwen3-moe")) continue;
      cases.push_back({folder, folder, "config.json", kernels});
      // The other spelling gives the same model: once is enough.
      const std::string newer = "config.transformers5.json";
      if (kernels == KernelSet::kReference && FileExists(folder + "/" + newer))
        cases.push_back({folder, folder, newer, kernels});
    }
    cases.push_back({testing_support::SourcePath("models/wideload-14m"),
                     testing_support::SourcePath("testdata/models/wideload-14m"), "config.json",
                     kernels});
  }
  return cases;
}

// Logits of a prompt's positions, and which experts each position was routed to.
struct PromptRun {
  std::vector<float> logits;                  // [T, vocab]
  std::vector<std::vector<int64_t>> routing;  // [T] of counts [MoE layers, experts]
};

// One position an iteration, so that an iteration's counts are a position's.
PromptRun RunPrompt(const TestModel& model, KernelSet kernels, const std::vector<int32_t>& prompt) {
  runtime::EngineOptions options = testing_support::TestOptions(model.config, kernels);
  options.max_num_tokens = 1;
  runtime::Engine engine(*model.model, options);
  const moe::MoeShape& moe = model.model->spec().moe;
  std::optional<statistics::Recorder> recorder;
  if (moe.num_experts > 0)
    engine.SetRecorder(&recorder.emplace(
        statistics::RecorderOptions{.layers = moe.layers,
                                    .num_experts = static_cast<int32_t>(moe.num_experts),
                                    .experts_per_token = static_cast<int32_t>(moe.top_k())}));
  PromptRun run;
  Outcome outcome = testing_support::RunRequests(
      engine, {{.prompt = prompt, .max_tokens = 0, .prompt_logits = true}})[0];
  EXPECT_EQ(outcome.error, "");
  run.logits = std::move(outcome.logits);
  run.routing.resize(prompt.size());
  if (!recorder) return run;
  const statistics::ExpertStatistics counts = recorder->Statistics();
  EXPECT_EQ(counts.num_iterations, static_cast<int64_t>(prompt.size()));
  const size_t per_position = counts.counts.size() / prompt.size();
  for (size_t t = 0; t < prompt.size(); ++t) {
    const auto begin = counts.counts.begin() + static_cast<int64_t>(t * per_position);
    run.routing[t].assign(begin, begin + static_cast<int64_t>(per_position));
  }
  return run;
}

class Golden : public testing::TestWithParam<Case> {
 protected:
  Golden() : golden_(GetParam().golden + "/golden.safetensors") {
    while (golden_.Has(fmt::format("input_ids.{}", num_prompts_))) ++num_prompts_;
  }
  void SetUp() override {
    if (IsOnDevice(GetParam().kernels)) {
      const std::string why_none = testing_support::OpenTestDevice();
      if (!why_none.empty()) GTEST_SKIP() << "not run on a GPU: " << why_none;
    }
    loaded_ = Load(GetParam().kernels);
  }

  TestModel Load(KernelSet kernels) const {
    return testing_support::LoadTestModel(GetParam().folder, kernels, GetParam().config);
  }
  std::vector<int32_t> Ids(const std::string& name) const {
    const TensorView view = golden_.Get(name);
    return {view.data<int32_t>(), view.data<int32_t>() + view.shape().num_elements()};
  }
  std::vector<PromptRun> RunPrompts(const TestModel& model, KernelSet kernels) const {
    std::vector<PromptRun> runs;
    for (int i = 0; i < num_prompts_; ++i)
      runs.push_back(RunPrompt(model, kernels, Ids(fmt::format("input_ids.{}", i))));
    return runs;
  }
  // Positions of prompt `i` before the first that the run sends to other experts than the exact
  // one: from there on they compute something else. That must be a near tie of the router.
  int64_t PositionsAlike(int i, const PromptRun& run) const {
    const PromptRun& exact = ExactRuns()[static_cast<size_t>(i)];
    const auto [end, other] = std::ranges::mismatch(run.routing, exact.routing);
    const auto position = end - run.routing.begin();
    if (end == run.routing.end()) return position;
    const moe::MoeShape& moe = loaded_.model->spec().moe;
    const auto differing = std::ranges::mismatch(*end, *other).in1 - end->begin();
    const int64_t moe_index = differing / moe.num_experts;
    testing_support::RouterChoice choice{
        .layer = moe.layers[static_cast<size_t>(moe_index)], .position = position, .experts = {}};
    for (int32_t e = 0; e < moe.num_experts; ++e)
      if ((*end)[static_cast<size_t>(moe_index * moe.num_experts + e)] > 0)
        choice.experts.push_back(e);
    const float distance =
        testing_support::DistanceTo(choice, GetParam().folder, Ids(fmt::format("input_ids.{}", i)));
    std::printf("prompt %d, position %lld, layer %lld: other experts within %.2g of the logits\n",
                i, static_cast<long long>(position), static_cast<long long>(choice.layer),
                distance);
    EXPECT_LE(distance, kMaxTie) << "prompt " << i << ", position " << position;
    return position;
  }
  // By the reference kernels; once for all kernel sets.
  const std::vector<PromptRun>& ExactRuns() const {
    static std::map<std::string, std::vector<PromptRun>> runs;
    std::vector<PromptRun>& of_folder = runs[GetParam().folder];
    if (of_folder.empty())
      of_folder = RunPrompts(Load(KernelSet::kReference), KernelSet::kReference);
    return of_folder;
  }
  std::vector<Outcome> Run(const std::vector<runtime::Request>& requests) const {
    return testing_support::RunRequests(
        *loaded_.model, testing_support::TestOptions(loaded_.config, GetParam().kernels), requests);
  }
  // The squared difference from the golden logits, and the largest one, of the positions of prompt
  // `i` before `end`. The golden file may have the last positions only; `logits` are of these.
  struct Error {
    double squares = 0;
    double largest = 0;
  };
  Error ErrorOf(int i, const float* logits, int64_t num_positions, int64_t end) const {
    const TensorView expected = golden_.Get(fmt::format("logits.{}", i));
    const int64_t vocab = loaded_.config.vocab_size;
    const int64_t first = num_positions - expected.dim(0);
    Error error;
    for (int64_t t = first; t < end; ++t)
      for (int64_t v = 0; v < vocab; ++v) {
        const double difference = static_cast<double>(logits[(t - first) * vocab + v]) -
                                  static_cast<double>(expected.row<float>(t - first)[v]);
        error.squares += difference * difference;
        error.largest = std::max(error.largest, std::abs(difference));
      }
    return error;
  }

  Error ErrorOf(int i, const PromptRun& run, int64_t end) const {
    const auto positions = static_cast<int64_t>(run.routing.size());
    const TensorView expected = golden_.Get(fmt::format("logits.{}", i));
    const int64_t first = positions - expected.dim(0);
    return ErrorOf(i, run.logits.data() + first * expected.dim(1), positions, end);
  }

  SafetensorsFile golden_;
  TestModel loaded_;
  int num_prompts_ = 0;
};

TEST_P(Golden, ReferenceKernelsGiveTheLogitsOfTheIndependentImplementation) {
  if (GetParam().kernels != KernelSet::kReference) GTEST_SKIP() << "not the fp32 kernels";
  const std::vector<PromptRun> runs = RunPrompts(loaded_, GetParam().kernels);
  ASSERT_GE(runs.size(), 3u);
  for (size_t i = 0; i < runs.size(); ++i) {
    const auto positions = static_cast<int64_t>(runs[i].routing.size());
    const double largest = ErrorOf(static_cast<int>(i), runs[i], positions).largest;
    std::printf("prompt %zu: largest error %.3g\n", i, largest);
    EXPECT_LE(largest, kReferenceTolerance) << i;
  }
}

TEST_P(Golden, OtherKernelsAreAsExactAsBf16) {
  if (GetParam().kernels == KernelSet::kReference) GTEST_SKIP() << "the fp32 kernels";
  const bool is_quantised = !golden_.Has("logits_bf16.0");
  const std::vector<PromptRun> runs = RunPrompts(loaded_, GetParam().kernels);
  std::vector<PromptRun> plain;
  if (is_quantised) {
    const std::string folder = testing_support::TemporaryFolder("dequantized");
    testing_support::WriteDequantized(GetParam().folder, folder);
    const TestModel widened = testing_support::LoadTestModel(folder, GetParam().kernels);
    EXPECT_LT(loaded_.model->weight_bytes(), widened.model->weight_bytes());  // kept as stored
    plain = RunPrompts(widened, GetParam().kernels);
  }
  double squares = 0, bf16_squares = 0;
  int64_t compared = 0;
  for (int i = 0; i < num_prompts_; ++i) {
    const auto at = static_cast<size_t>(i);
    const auto positions = static_cast<int64_t>(runs[at].routing.size());
    int64_t end = PositionsAlike(i, runs[at]);
    if (is_quantised) end = std::min(end, PositionsAlike(i, plain[at]));
    compared += end;
    squares += ErrorOf(i, runs[at], end).squares;
    if (is_quantised) {
      bf16_squares += ErrorOf(i, plain[at], end).squares;
    } else {
      const float* bf16 = golden_.Get(fmt::format("logits_bf16.{}", i)).data<float>();
      bf16_squares += ErrorOf(i, bf16, positions, end).squares;
    }
  }
  std::printf("%lld positions, RMS error / RMS error of bf16 %.3f\n",
              static_cast<long long>(compared), std::sqrt(squares / bf16_squares));
  EXPECT_GE(compared, kMinPositions);
  EXPECT_LE(std::sqrt(squares / bf16_squares), kBf16Slack);
}

TEST_P(Golden, GreedyContinuationsAgreeUpToTheFirstNearTie) {
  std::vector<runtime::Request> requests;
  for (int i = 0; i < num_prompts_; ++i)
    requests.push_back(
        {.prompt = Ids(fmt::format("input_ids.{}", i)),
         .max_tokens = static_cast<int64_t>(Ids(fmt::format("greedy_ids.{}", i)).size())});
  const std::vector<Outcome> outcomes = Run(requests);
  const bool is_reference = GetParam().kernels == KernelSet::kReference;
  const float min_margin = is_reference ? kMinReferenceMargin : kMinMargin;
  size_t compared = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const std::vector<int32_t> expected = Ids(fmt::format("greedy_ids.{}", i));
    const float* margin = golden_.Get(fmt::format("greedy_margin.{}", i)).data<float>();
    ASSERT_EQ(outcomes[i].tokens.size(), expected.size());
    for (size_t j = 0; j < expected.size() && margin[j] >= min_margin; ++j, ++compared)
      ASSERT_EQ(outcomes[i].tokens[j], expected[j]) << "prompt " << i << ", step " << j;
  }
  EXPECT_GE(compared, is_reference ? kMinCompared : 0);
}

TEST_P(Golden, LogprobsOfThePromptAgree) {
  if (!golden_.Has("logprobs.0") || GetParam().kernels != KernelSet::kReference)
    GTEST_SKIP() << "no logprobs or not the fp32 kernels";
  const int64_t vocab = loaded_.config.vocab_size;
  for (int i = 0; i < num_prompts_; ++i) {
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
