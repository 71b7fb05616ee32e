#include "eplb/search/even_search.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "eplb/placement/even_split.h"
#include "eplb/search/component_plan.h"
#include "eplb/search/even_kernels.h"
#include "eplb/search/even_model.h"
#include "eplb/testing.h"

namespace wideload::eplb {
namespace {

// Sums of floats that are kept up while slots change, over hundreds of changes.
constexpr double kKeptSumRounding = 2e-4;

const Annealing kShort{.proposals = 4000};

TEST(EvenModel, TakesALoneBatchForTheMean) {
  BatchLoads one{4};
  one.Add(std::vector<double>{4, 2, 1, 1});
  const EvenModel model = MakeEvenModel(one, 8);
  EXPECT_EQ(model.loads, (std::vector<double>{4, 2, 1, 1}));
  EXPECT_GT(model.variance[0], model.variance[1]);
}

// The part of expert 0's step from the first batch to the second that the model keeps.
double KeptPart(const BatchLoads& loads) {
  const auto share = [&loads](int32_t i) {
    return loads.At(i)[0] / std::accumulate(loads.At(i).begin(), loads.At(i).end(), 0.0);
  };
  const EvenModel model = MakeEvenModel(loads, 1);
  if (model.num_batches == 1) return 0;
  return (model.loads[0] - model.loads[static_cast<size_t>(loads.num_experts)]) /
         (share(0) - share(1));
}

TEST(EvenModel, KeepsWhatBatchesShareAndLittleOfWhatChanceGives) {
  BatchLoads topics{64};  // half of the experts are hot together in every other batch
  for (int32_t i = 0; i < 12; ++i) {
    std::vector<double> load(64, 1000);
    for (size_t e = 0; e < 32; ++e) load[e] += i % 2 == 0 ? 500 : 0;
    for (size_t e = 0; e < 64; ++e)
      load[e] += static_cast<double>((static_cast<size_t>(i) * 31 + e * 17) % 7) * 20;
    topics.Add(load);
  }
  EXPECT_GT(KeptPart(topics), 0.85);
  EXPECT_LT(KeptPart(RandomBatches(64, 12, 5)), 0.7);
}

TEST(EvenModel, KeepsTheMeanAloneOfBatchesWithNothingInCommon) {
  const BatchLoads random = RandomBatches(256, 20, 5);
  const EvenModel model = MakeEvenModel(random, 8);
  EXPECT_EQ(model.num_batches, 1);
  EXPECT_EQ(model.weights, std::vector<double>{1});
  const std::vector<double> mean = random.Mean();
  const double all = std::accumulate(mean.begin(), mean.end(), 0.0);
  for (size_t e = 0; e < 256; ++e) EXPECT_NEAR(model.loads[e], 8 * mean[e] / all, 1e-9);
}

// Half of the experts are hot together in every other batch.
BatchLoads TwoTopics(int32_t count) {
  BatchLoads topics{16};
  for (int32_t i = 0; i < count; ++i) {
    std::vector<double> load(16, 1000);
    for (size_t e = 0; e < 8; ++e) load[e] += i % 2 == 0 ? 500 : 0;
    topics.Add(load);
  }
  return topics;
}

TEST(EvenModel, ThinsOutManyBatches) {
  const EvenModel model = MakeEvenModel(TwoTopics(3 * kMaxModelBatches), 4);
  EXPECT_EQ(model.num_batches, kMaxModelBatches);
  EXPECT_NEAR(std::accumulate(model.weights.begin(), model.weights.end(), 0.0), 1, 1e-12);
}

TEST(EvenSearch, LowersTheObjective) {
  const EvenModel model = MakeEvenModel(RandomBatches(32, 20, 3), 8);
  const Placement start = ComponentPlan(RandomBatches(32, 1, 3).Mean(), 40, 8);
  EvenSearch search(model, start, {.seed = 4});
  search.Anneal({.proposals = 2000});
  const std::vector<double> speed(8, 1.0);
  EvenState kept(model, search.placement(), speed);
  EvenState again(model, start, speed);
  kept.TuneSharpness(0.7);
  again.TuneSharpness(0.7);
  EXPECT_NE(search.placement(), start);
  EXPECT_LT(kept.objective(), again.objective());
}

TEST(EvenState, TellsWhatAMoveChanges) {
  const EvenModel model = MakeEvenModel(RandomBatches(16, 20, 6), 4);
  const Placement start = ComponentPlan(RandomBatches(16, 1, 6).Mean(), 20, 4);
  const std::vector<double> speed(4, 1.0);
  Random random(7);
  EvenState state(model, start, speed);
  int32_t moves = 0;
  for (int32_t i = 0; i < 400; ++i) {
    const int32_t a = random.Below(20);
    const int32_t b = random.Below(20);
    const int32_t expert_a = state.ExpertAt(a);
    const int32_t expert_b = state.ExpertAt(b);
    if (state.Holds(state.RankOf(a), expert_b)) continue;
    EvenMove move{1, {a, -1}, {expert_b, -1}};
    if (i % 2 == 0) {
      if (state.Holds(state.RankOf(b), expert_a)) continue;
      move = {2, {a, b}, {expert_b, expert_a}};
    } else if (state.NumSlots(expert_a) < 2) {
      continue;
    }
    const double promised = state.objective() + state.Try(move);
    state.Keep();
    const EvenState fresh(model, state.placement(), speed);
    EXPECT_NEAR(fresh.objective(), promised, kKeptSumRounding);
    EXPECT_EQ(fresh.objective() > 0, state.objective() > 0);
    ++moves;
  }
  EXPECT_GT(moves, 100);
}

TEST(EvenSearch, GivesTheSamePlacementAgain) {
  const EvenModel model = MakeEvenModel(RandomBatches(32, 20, 3), 8);
  const Placement start = ComponentPlan(RandomBatches(32, 1, 3).Mean(), 40, 8);
  const auto plan = [&](uint64_t seed) {
    EvenSearch search(model, start, {.seed = seed});
    search.Anneal(kShort);
    ValidatePlacement(search.placement(), "plan");
    EXPECT_EQ(CountDuplicateSlots(search.placement()), 0);
    return search.placement();
  };
  EXPECT_EQ(plan(1), plan(1));
  EXPECT_NE(plan(1), plan(2));
}

TEST(EvenSearch, LeavesSlotsOfDeadRanksAlone) {
  const EvenModel model = MakeEvenModel(RandomBatches(16, 12, 9), 3);
  const Placement start = ComponentPlan(RandomBatches(16, 1, 9).Mean(), 32, 4);
  EvenSearch search(model, start, {.rank_speed = {1, 1, 0, 1}});
  search.Anneal(kShort);
  for (size_t s = 16; s < 24; ++s)
    EXPECT_EQ(search.placement().slot_expert[s], start.slot_expert[s]);
}

TEST(EvenSearch, StepsWithinTheBudgetOfFetches) {
  const EvenModel model = MakeEvenModel(RandomBatches(32, 20, 3), 8);
  const Placement start = ContiguousPlacement(32, 40, 8);
  EvenSearch search(model, start, {.current = &start, .max_fetches = 3});
  const double before = search.objective();
  for (int32_t i = 0; i < 10; ++i) search.Step(500, 1e-4);
  EXPECT_LE(search.num_fetches(), 3);
  EXPECT_GT(search.num_fetches(), 0);
  EXPECT_LT(search.objective(), before);
  EXPECT_EQ(CountFetchedSlots(start, search.placement()), search.num_fetches());
}

// All tables of kernels this processor can run.
std::vector<const EvenKernels*> RunnableKernels() {
  std::vector<const EvenKernels*> tables{&BaselineEvenKernels()};
  if (__builtin_cpu_supports("avx2")) tables.push_back(&Avx2EvenKernels());
  if (__builtin_cpu_supports("avx512f")) tables.push_back(&Avx512EvenKernels());
  return tables;
}

TEST(EvenKernels, AgreeToTheBitAndWithTheMathLibrary) {
  constexpr int32_t kRanks = 3;
  std::vector<float> loads(2 * kRanks * kLanes), weights(2 * kLanes, 1.0F / (2 * kLanes));
  for (size_t i = 0; i < loads.size(); ++i) loads[i] = 0.5F + 0.011F * static_cast<float>(i);
  const std::vector<float> offsets{-5, -4.5F, -5.25F};
  double expected = 0;
  for (size_t lane = 0; lane < weights.size(); ++lane) {
    double sum = 0;
    for (size_t r = 0; r < kRanks; ++r) {
      const size_t at = (lane / kLanes * kRanks + r) * kLanes + lane % kLanes;
      sum += std::exp(5.0 * loads[at] + offsets[r]);
    }
    expected += weights[lane] * std::log(sum);
  }
  std::vector<std::vector<float>> answers;
  for (const EvenKernels* kernels : RunnableKernels()) {
    std::vector<float> own = loads, exponentials(loads.size()), sums(weights.size());
    std::vector<float> new_loads(loads.size()), new_exponentials(loads.size());
    const EvenLanes lanes{.loads = own.data(),
                          .exponentials = exponentials.data(),
                          .sums = sums.data(),
                          .weights = weights.data(),
                          .sharpness = 5,
                          .num_blocks = 2,
                          .num_ranks = kRanks};
    const float cost = kernels->exponentiate(lanes, offsets.data());
    EXPECT_NEAR(cost, expected, 1e-4);
    const int32_t ranks[] = {0, 2};
    const float factors[] = {0.25F, -0.25F};
    const EvenChange change{.load = {loads.data(), loads.data() + kLanes},
                            .factor = {factors, factors},
                            .rank = ranks,
                            .offset = offsets.data(),
                            .num_ranks = 2};
    std::vector<float> answer{
        cost, kernels->try_change(lanes, change, new_loads.data(), new_exponentials.data())};
    answer.insert(answer.end(), new_exponentials.begin(), new_exponentials.end());
    answers.push_back(std::move(answer));
  }
  for (const std::vector<float>& answer : answers) EXPECT_EQ(answer, answers.front());
}

}  // namespace
}  // namespace wideload::eplb
