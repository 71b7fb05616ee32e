#include "eplb/replay/simulate.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "eplb/placement/random.h"
#include "eplb/policies/tensorrt_llm_policy.h"

namespace wideload::eplb {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// One layer, one expert per token: token t of a document chose expert t of its list.
RoutingTrace TraceOf(const std::vector<std::vector<std::vector<uint16_t>>>& tasks) {
  RoutingTrace trace{.num_layers = 1, .top_k = 1, .num_experts = 100, .tasks = {}};
  for (const auto& documents : tasks) {
    RoutingTask& task = trace.tasks.emplace_back();
    for (const std::vector<uint16_t>& document : documents) {
      task.document_tokens.push_back(std::ssize(document));
      task.expert_ids.insert(task.expert_ids.end(), document.begin(), document.end());
    }
  }
  return trace;
}

TEST(MakeLayerTrace, RecordsTheFirstHalfAndDropsAnIncompleteIteration) {
  const RoutingTrace trace = TraceOf({{{0, 1, 2}, {3, 4, 5}, {6}}});
  IterationRule rule{.tokens = 2};
  LayerTrace layer = MakeLayerTrace(trace, rule, 0);
  EXPECT_THAT(layer.recorded, ElementsAre(ElementsAre(0, 1)));
  EXPECT_THAT(layer.measured, ElementsAre(ElementsAre(2, 3), ElementsAre(4, 5)));
  rule.answer_stride = 2;  // documents 0, 2, 1
  layer = MakeLayerTrace(trace, rule, 0);
  EXPECT_THAT(layer.measured, ElementsAre(ElementsAre(2, 6), ElementsAre(3, 4)));
}

TEST(MakeLayerTrace, RecordsHalfOfEachTask) {
  const RoutingTrace trace = TraceOf({{{0, 1, 2, 3}}, {{10, 11, 12, 13, 14, 15}}});
  const LayerTrace layer =
      MakeLayerTrace(trace, {.tokens = 2, .record = IterationRule::Record::kHalfPerTask}, 0);
  EXPECT_THAT(layer.recorded, ElementsAre(ElementsAre(0, 1), ElementsAre(10, 11)));
  EXPECT_THAT(layer.measured,
              ElementsAre(ElementsAre(2, 3), ElementsAre(12, 13), ElementsAre(14, 15)));
}

TEST(MakeLayerTrace, DecodesTokenByTokenOfAnswersThatAreLongEnough) {
  const RoutingTrace trace = TraceOf({{{0, 1, 2, 3}, {10, 11}, {20, 21, 22}, {30, 31, 32, 33}}});
  const LayerTrace layer = MakeLayerTrace(trace,
                                          {.kind = IterationRule::Kind::kDecode,
                                           .decode_step = 2,
                                           .decode_length = 3,
                                           .record = IterationRule::Record::kAlternateAnswers},
                                          0);
  EXPECT_THAT(layer.recorded, ElementsAre(ElementsAre(0, 30), ElementsAre(2, 32)));
  EXPECT_THAT(layer.measured, ElementsAre(ElementsAre(20), ElementsAre(22)));
}

SimulatedPolicy Fixed(const Placement& placement) {
  return {"fixed", [placement](const BatchLoads&) { return placement; }, {}};
}

LayerTrace RandomTrace(int32_t experts, uint64_t seed) {
  Random random(seed);
  LayerTrace trace{experts, 1, {}, {}};
  for (int32_t i = 0; i < 6; ++i) {
    std::vector<uint16_t>& ids = (i < 2 ? trace.recorded : trace.measured).emplace_back();
    for (int32_t t = 0; t < 200; ++t)
      ids.push_back(static_cast<uint16_t>(std::min(random.Below(experts), random.Below(experts))));
  }
  return trace;
}

TEST(SimulateLayer, ReachesTheFractionalOptimumRoundedUp) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const LayerTrace trace = RandomTrace(12, seed);
    const SimulateOptions options{
        .num_ranks = 4,
        .num_slots = 16,
        .splits = {SimulatedSplit::kOptimal, SimulatedSplit::kOptimalFractional,
                   SimulatedSplit::kEven}};
    const auto runs = SimulateLayer(trace, options, {Fixed(RandomPlacement(12, 16, 4, seed))});
    EXPECT_EQ(runs[0].num_above_ceil, 0);
    for (size_t i = 0; i < trace.measured.size(); ++i) {
      EXPECT_LE(runs[1].imbalance[i], runs[0].imbalance[i] + 1e-9);
      EXPECT_NEAR(runs[0].imbalance_fractional[i], runs[1].imbalance[i], 1e-9);
      EXPECT_LE(runs[1].imbalance[i], runs[2].imbalance[i] + 1e-9);
    }
  }
}

// 5 tokens for the expert of rank 0 and 1 for that of rank 1; 3 tokens come from each.
TEST(SimulateLayer, FillsTheLeastBusyRankWithTheSharedExpert) {
  const LayerTrace trace{2, 1, {{0, 1}}, {{0, 0, 0, 0, 0, 1}}};
  const SimulateOptions options{
      .num_ranks = 2, .num_slots = 2, .splits = {SimulatedSplit::kEven}, .shared_expert_cost = 1};
  const auto runs = SimulateLayer(trace, options, {Fixed(ContiguousPlacement(2, 2, 2))});
  EXPECT_THAT(runs[0].imbalance, ElementsAre(testing::DoubleEq(2.0 / 3)));
  EXPECT_THAT(runs[0].shared.imbalance_home, ElementsAre(testing::DoubleEq(8.0 / 6 - 1)));
  EXPECT_THAT(runs[0].shared.imbalance, ElementsAre(0));
  EXPECT_DOUBLE_EQ(runs[0].shared.rows_moved, 2.0 / 6);
}

TEST(SimulateLayer, CoversTheExpertsOfDeadRanksAndMeasuresTheOthers) {
  const LayerTrace trace = RandomTrace(6, 1);
  SimulateOptions options{
      .num_ranks = 4, .num_slots = 8, .splits = {SimulatedSplit::kOptimal}, .dead_ranks = {2}};
  const Placement planned = ContiguousPlacement(6, 8, 4);  // 0 1 | 1 2 | 3 4 | 4 5
  const auto runs = SimulateLayer(trace, options, {Fixed(planned)});
  EXPECT_EQ(runs[0].slots_fetched_first, 1);  // expert 3
  EXPECT_EQ(runs[0].planned.num_ranks, 3);
  ValidatePlacement(runs[0].planned, "of live ranks");
  EXPECT_EQ(runs[0].planned.num_slots(), 6);  // each expert once: one of the two 1 became 3
  options.dead_ranks = {2, 3};
  EXPECT_THROW(SimulateLayer(trace, options, {Fixed(planned)}), Error);  // 4 slots, 6 experts
}

TEST(LiveSizes, RefusesRanksThatAreNotThere) {
  SimulateOptions options{.num_ranks = 4, .num_slots = 40, .splits = {}, .dead_ranks = {0, 3}};
  EXPECT_EQ(LiveSizes(options).num_ranks, 2);
  EXPECT_EQ(LiveSizes(options).num_slots, 20);
  for (const std::vector<int32_t>& dead : {std::vector<int32_t>{4}, {-1}, {1, 1}, {0, 1, 2, 3}}) {
    options.dead_ranks = dead;
    EXPECT_THROW(LiveSizes(options), Error) << dead.size();
  }
}

TEST(SimulateLayer, RepairsOnlyFromWhatItHasSeen) {
  const LayerTrace trace = RandomTrace(6, 3);
  std::vector<int32_t> seen;
  SimulatedPolicy policy = Fixed(ContiguousPlacement(6, 8, 4));
  policy.repair = [&seen](const Placement& now, const BatchLoads& scenarios) {
    seen.push_back(scenarios.size());
    Placement next = now;
    std::swap(next.slot_expert[0], next.slot_expert[2]);
    return next;
  };
  const SimulateOptions options{.num_ranks = 4, .num_slots = 8, .splits = {SimulatedSplit::kEven}};
  const auto runs = SimulateLayer(trace, options, {policy});
  EXPECT_THAT(seen, ElementsAre(3, 4, 5, 6));  // two recorded, then one more after each
  EXPECT_EQ(runs[0].imbalance.size(), 4);
  // 0 1 | 1 2 -> 1 1 | 0 2 fetches expert 0 only, the way back 0 and 1
  EXPECT_DOUBLE_EQ(runs[0].fetched_slots, 1.5);
}

TEST(Summarise, TakesTheNearestRank) {
  std::vector<double> values(200);
  std::iota(values.begin(), values.end(), 1.0);
  EXPECT_DOUBLE_EQ(Summarise(values).p99, 198);
  EXPECT_DOUBLE_EQ(Summarise(values).mean, 100.5);
  EXPECT_DOUBLE_EQ(Summarise({3}).p99, 3);
}

TEST(ParseSimulatedSplit, NamesWhatIsAllowed) {
  try {
    ParseSimulatedSplit("fair");
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("\"fair\"; allowed: even, round_robin, optimal"));
  }
}

TEST(ValidateIterationRule, RefusesAStrideThatSkipsAnswers) {
  RoutingTrace trace{1, 1, 2, {{{1, 1, 1, 1}, {0, 1, 0, 1}}}};
  IterationRule rule;
  rule.tokens = 2;
  rule.answer_stride = 2;
  EXPECT_THROW(ValidateIterationRule(trace, rule), Error);
  rule.answer_stride = 3;
  EXPECT_NO_THROW(ValidateIterationRule(trace, rule));
  EXPECT_EQ(MakeLayerTrace(trace, rule, 0).measured.size(), 1u);
}

}  // namespace
}  // namespace wideload::eplb
