#include "support/layout_cases.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "model/registry.h"
#include "support/engine_processes.h"
#include "support/random_layout.h"
#include "support/random_model.h"
#include "support/test_data.h"

namespace wideload::testing_support {
namespace {

constexpr uint64_t kSeed = 15;
constexpr const char* kRandomModel = "random_8_heads";

// The first has one layer.
std::vector<int32_t> UnequalStages(int64_t num_layers, int32_t num_stages) {
  std::vector<int32_t> layers = {1};
  for (int32_t s = 1; s < num_stages; ++s)
    layers.push_back(
        static_cast<int32_t>(parallel::ShardOf(num_layers - 1, num_stages - 1, s - 1).size()));
  return layers;
}

std::vector<parallel::Layout> StageLayouts(int32_t num_ranks, int64_t num_heads) {
  std::vector<parallel::Layout> layouts;
  for (int32_t tp = 1; tp <= std::min<int64_t>(num_ranks, num_heads); tp *= 2)
    for (int32_t cp = 1; cp <= num_ranks / tp; cp *= 2)
      for (int32_t moe_tp = 1; moe_tp <= num_ranks; moe_tp *= 2)
        layouts.push_back({.tp = tp,
                           .dp = num_ranks / tp / cp,
                           .cp = cp,
                           .moe_tp = moe_tp,
                           .moe_ep = num_ranks / moe_tp});
  return layouts;
}

// Ranks are more than cores, and others may use the machine, too.
constexpr std::chrono::seconds kDeadline{60};

}  // namespace

std::vector<std::string> LayoutModels() {
  const std::string folder = TemporaryFolder(kRandomModel);
  WriteLayoutModel(folder, kSeed);
  return {folder, SourcePath("testdata/models/tiny-deepseek-v3"),
          SourcePath("testdata/models/tiny-gpt-oss")};
}

std::string LayoutCase::Describe() const {
  return fmt::format("{} stages, {} groups of {} x {}, experts in {} parts, {}, {}", layout.pp,
                     layout.dp, layout.tp, layout.cp, layout.moe_tp,
                     are_experts_moving ? "moving" : "in place",
                     are_processes ? "processes" : "threads");
}

std::vector<LayoutCase> LayoutCases(const std::string& folder) {
  const model::ModelReading reading = model::ReadModel(folder);
  std::vector<LayoutCase> cases;
  for (const int32_t world : {1, 2, 4, 8})
    for (int32_t pp = 1; pp <= std::min<int64_t>(world, reading.spec.num_layers()); pp *= 2)
      for (const parallel::Layout& layout :
           StageLayouts(world / pp, reading.config.num_attention_heads))
        for (const bool is_moving : {false, true})
          for (const bool are_processes : {false, true}) {
            cases.push_back({.layout = layout,
                             .are_experts_moving = is_moving,
                             .are_processes = are_processes});
            cases.back().layout.pp = pp;
          }
  return cases;
}

std::string LayoutPageBegin() {
  return R"(# Layouts

Every layout of 1, 2, 4 and 8 ranks of three models, and the largest difference of a logit from one rank; 0: no bit of any
logit and no token differs. Ranks are threads of one process, or processes. `--ep` is the
number of ranks of a stage divided by `--moe-tp`. `./dev soak layouts --all --write` makes this
page; without `--write` it tries all again and compares; `./dev test` tries a sample. Experts that move have spare slots,
go through their layer in chunks, and change their places at random while requests run; with them the first of several stages has one
layer, otherwise stages are equal. As many micro-batches as stages are in flight. "random, 8 heads" has 2 KV heads,
8 layers and 16 experts, made from a seed; the others are in `testdata/models`.

| model | ranks | stages (`--pp`) | share attention (`--tp`) | share a context (`--cp`) | groups (`--dp`) | divide an expert (`--moe-tp`) | experts | threads | processes |
|---|---|---|---|---|---|---|---|---|---|
)";
}

std::string LayoutRowBegin(const std::string& folder, const LayoutCase& layout) {
  const bool is_random = folder.find(kRandomModel) != std::string::npos;
  return fmt::format("| {} | {} | {} | {} | {} | {} | {} | {} | ",
                     is_random ? "random, 8 heads" : folder.substr(folder.find_last_of('/') + 1),
                     layout.layout.world(), layout.layout.pp, layout.layout.tp, layout.layout.cp,
                     layout.layout.dp, layout.layout.moe_tp,
                     layout.are_experts_moving ? "moving" : "in place");
}

std::vector<runtime::Request> ShortRequests(const TestModel& model, size_t count, uint64_t seed) {
  std::vector<runtime::Request> requests = DrawRequests(model, count, seed);
  for (runtime::Request& request : requests)
    request.max_tokens = std::min<int64_t>(request.max_tokens, 6);
  return requests;
}

std::string Difference(const std::vector<Outcome>& got, const std::vector<Outcome>& expected) {
  float largest = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (got[i].tokens != expected[i].tokens) return fmt::format("tokens of request {}", i);
    if (got[i].error != expected[i].error || got[i].finish != expected[i].finish ||
        got[i].logits.size() != expected[i].logits.size())
      return fmt::format("the end of request {}: {}", i, got[i].error);
    const std::vector<float>& logits = got[i].logits;
    if (logits.empty() ||
        std::memcmp(logits.data(), expected[i].logits.data(), logits.size() * sizeof(float)) == 0)
      continue;
    for (size_t j = 0; j < logits.size(); ++j)
      largest = std::max(largest, std::abs(logits[j] - expected[i].logits[j]));
    if (!(largest > 0)) return fmt::format("bits of request {}", i);
  }
  return fmt::format("{}", largest);
}

LayoutRunner::LayoutRunner(const std::string& folder, compute::KernelSet kernels)
    : folder_(folder), kernels_(kernels), model_(LoadTestModel(folder, kernels)) {
  requests_ = ShortRequests(model_, 6, kSeed);
  expected_ = RunRequests(*model_.model, TestOptions(model_.config, kernels), requests_);
}

runtime::EngineOptions LayoutRunner::Options(const LayoutCase& layout) const {
  runtime::EngineOptions options = TestOptions(model_.config, kernels_);
  options.layout = layout.layout;
  options.deadline = kDeadline;
  options.max_num_tokens = 60;
  options.num_micro_batches = layout.layout.pp;
  if (layout.are_experts_moving && layout.layout.pp > 1)
    options.stage_layers = UnequalStages(model_.model->spec().num_layers(), layout.layout.pp);
  const auto experts = static_cast<int32_t>(model_.config.num_experts);
  const int32_t ranks = layout.layout.moe_ep;
  if (!layout.are_experts_moving || options.num_ranks() == 1) return options;
  options.num_slots = ranks * std::min(experts, (experts + ranks - 1) / ranks + 1);
  options.moe_max_num_tokens = 3 * options.layout.stage();
  options.rebalance = {.mode = rebalance::Mode::kRandom, .seed = kSeed};
  return options;
}

std::string LayoutRunner::Run(const LayoutCase& layout) {
  if (model_.tensor_ranks != layout.layout.tp || model_.expert_parts != layout.layout.moe_tp)
    model_ = LoadTestModel(folder_, kernels_, layout.layout.tp, layout.layout.moe_tp);
  const runtime::EngineOptions options = Options(layout);
  if (!layout.are_processes)
    return Difference(RunRequests(*model_.model, options, requests_), expected_);
  const auto lead = [&](runtime::Engine& engine) {
    const std::string difference = Difference(RunRequests(engine, requests_), expected_);
    if (difference != "0") Throw(ErrorKind::kRunFailed, "{}", difference);
  };
  const ProcessOutcome outcome =
      RunEngineProcesses({.options = options,
                          .model_of = [&](int) -> const model::Model& { return *model_.model; },
                          .lead = lead});
  if (!outcome.killed_ranks.empty()) return fmt::format("rank {} died", outcome.killed_ranks[0]);
  return outcome.ranks.error.empty() ? "0" : outcome.ranks.error;
}

}  // namespace wideload::testing_support
