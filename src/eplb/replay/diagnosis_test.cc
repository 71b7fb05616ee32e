#include "eplb/replay/diagnosis.h"

#include <gmock/gmock.h>

namespace wideload::eplb {
namespace {

// R1-like: 256 experts on 36 ranks with 288 slots.
DiagnosisFigures R1Like() {
  return {.num_experts = 256,
          .choices_per_iteration = 36864,
          .imbalance_now = 1.5,
          .sampling_floor = 0.066,
          .asked = {.sizes = {.num_slots = 288, .num_ranks = 36},
                    .imbalance_even = 0.114,
                    .imbalance_optimal = 0.024,
                    .imbalance_seen = 0.020,
                    .component_bound = 0.017,
                    .fewest_components = 4},
          .imbalance_interleaved = 0.021,
          .others = {{.sizes = {.num_slots = 324, .num_ranks = 36},
                      .imbalance_even = 0.1,
                      .imbalance_optimal = 0.0004},
                     {.sizes = {.num_slots = 360, .num_ranks = 36},
                      .imbalance_even = 0.1,
                      .imbalance_optimal = 0.0001},
                     {.sizes = {.num_slots = 288, .num_ranks = 18}, .imbalance_optimal = 0.001}}};
}

TEST(Diagnosis, TakesTheFewestSlotsThatMakeOneComponent) {
  const Diagnosis diagnosis = Decide(R1Like());
  EXPECT_EQ(diagnosis.worth, Worth::kYes);
  EXPECT_NEAR(diagnosis.speed_up, 2.5 / 1.024, 1e-9);
  EXPECT_NEAR(diagnosis.best_speed_up, 2.5 / 1.0004, 1e-9);
  EXPECT_EQ(diagnosis.limit, Limit::kComponents);
  EXPECT_EQ(diagnosis.best.sizes.num_slots, 324);
  EXPECT_EQ(diagnosis.best.sizes.num_ranks, 36);
  EXPECT_FALSE(diagnosis.needs_split);
}

TEST(Diagnosis, NamesTheLargestLimit) {
  DiagnosisFigures figures = R1Like();
  figures.imbalance_interleaved = 0.004;
  EXPECT_EQ(Decide(figures).limit, Limit::kDrift);
  EXPECT_NEAR(Decide(figures).drift, 0.02, 1e-9);
  figures.asked.replica_capacity_bound = 0.023;
  EXPECT_EQ(Decide(figures).limit, Limit::kReplicaCapacity);
  figures.asked.imbalance_optimal = 0.004;
  EXPECT_EQ(Decide(figures).limit, Limit::kNothing);
  figures.asked = {.imbalance_optimal = 0.03, .imbalance_seen = 0.03, .component_bound = 0.005};
  figures.imbalance_interleaved = 0.03;
  EXPECT_EQ(Decide(figures).limit, Limit::kBatchNoise);
}

TEST(Diagnosis, CallsNoDriftWhatAPlanLosesOnAnyOtherBatch) {
  DiagnosisFigures figures = R1Like();
  figures.asked = {.imbalance_optimal = 0.12, .imbalance_seen = 0.005, .component_bound = 0.02};
  figures.imbalance_interleaved = 0.115;
  const Diagnosis diagnosis = Decide(figures);
  EXPECT_EQ(diagnosis.limit, Limit::kBatchNoise);
  EXPECT_NEAR(diagnosis.drift, 0.005, 1e-9);
}

TEST(Diagnosis, IsNotWorthItWhenRanksAreEvenAnyway) {
  DiagnosisFigures figures = R1Like();
  figures.imbalance_now = 0.01;
  EXPECT_EQ(Decide(figures).worth, Worth::kNo);
  EXPECT_EQ(Decide(figures).best_worth, Worth::kNo);
  figures.imbalance_now = 0.03;
  EXPECT_EQ(Decide(figures).worth, Worth::kNo);  // the asked slots have 0.024
  EXPECT_EQ(Decide(figures).best_worth, Worth::kLittle);
  figures.imbalance_now = 0.12;  // an even split leaves nearly all of it
  EXPECT_TRUE(Decide(figures).needs_split);
}

TEST(Diagnosis, HalvesTheRanksOnlyWhenTheyStayUneven) {
  DiagnosisFigures figures = R1Like();
  for (SizeFigures* size : {&figures.asked, &figures.others[0], &figures.others[1]})
    size->imbalance_optimal = 0.3;
  EXPECT_EQ(Decide(figures).best.sizes.num_ranks, 18);
}

TEST(Diagnosis, LooksAtTheEvenSplitForEnginesThatSplitEvenly) {
  DiagnosisFigures figures = R1Like();
  figures.splits_by_counts = false;
  figures.imbalance_interleaved = 0.112;
  const Diagnosis diagnosis = Decide(figures);
  EXPECT_NEAR(diagnosis.speed_up, 2.5 / 1.114, 1e-9);
  EXPECT_EQ(diagnosis.limit, Limit::kBatchNoise);  // components bound no even split
  EXPECT_EQ(diagnosis.best.sizes.num_slots, 324);
  // All experts alike: what remains is the batches' noise, with and without a plan.
  figures.imbalance_now = 0.076;
  for (SizeFigures* size : {&figures.asked, &figures.others[0], &figures.others[1]})
    size->imbalance_even = 0.079;
  EXPECT_EQ(Decide(figures).worth, Worth::kNo);
  EXPECT_EQ(Decide(figures).best_worth, Worth::kNo);
  EXPECT_EQ(Decide(figures).best.sizes.num_slots, 288);
}

TEST(SizesToCompare, HoldOneComponentAndOtherRanks) {
  std::vector<std::pair<int32_t, int32_t>> sizes;
  for (const Sizes& size : SizesToCompare(256, {.num_slots = 288, .num_ranks = 32}))
    sizes.emplace_back(size.num_slots, size.num_ranks);
  EXPECT_THAT(sizes, testing::ElementsAre(std::pair(256, 32), std::pair(320, 32),
                                          std::pair(272, 16), std::pair(320, 64)));
}

TEST(MeasuredSizes, ShowDriftAndCapacity) {
  // Recorded and measured batches differ: what was hot turns cold.
  BatchLoads recorded{.num_experts = 4, .loads = {}, .weights = {}};
  recorded.Add(std::vector<double>{40, 40, 10, 10});
  BatchLoads measured{.num_experts = 4, .loads = {}, .weights = {}};
  measured.Add(std::vector<double>{10, 40, 10, 40});
  const DiagnosisInput input{.recorded = recorded, .measured = measured, .max_moves = 0};
  const SizeFigures tight = MeasureSizes(input, {.num_slots = 4, .num_ranks = 4});
  constexpr double kRounding = 1e-8;  // the capacity bound is found by bisection to 1e-9
  EXPECT_NEAR(tight.imbalance_optimal, 0.6, kRounding);
  EXPECT_NEAR(tight.replica_capacity_bound, 0.6, kRounding);
  EXPECT_NEAR(ContiguousImbalance(measured, 2), 0, kRounding);
  const SizeFigures spare = MeasureSizes(input, {.num_slots = 4, .num_ranks = 2});
  EXPECT_NEAR(spare.imbalance_seen, 0, kRounding);
}

}  // namespace
}  // namespace wideload::eplb
