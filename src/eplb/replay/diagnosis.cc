#include "eplb/replay/diagnosis.h"

#include <algorithm>

#include "eplb/policies/even_policy.h"
#include "eplb/policies/tensorrt_llm_policy.h"
#include "eplb/replay/placement_figures.h"
#include "eplb/search/component_plan.h"
#include "eplb/search/scenario_planner.h"

namespace wideload::eplb {
namespace {

constexpr double kWorthSpeedUp = 1.05;  // less is lost in the noise of a deployment
constexpr double kLittleSpeedUp = 1.02;
constexpr double kBalanced = 0.01;  // nobody can measure the difference to 0
constexpr double kSameImbalance = 0.005;
constexpr double kTooUneven = 0.1;
// Enough to compare sizes; plans have three times as many.
constexpr int64_t kEvenProposals = 100'000;

int32_t RoundUp(int32_t value, int32_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

double DriftOf(const DiagnosisFigures& figures) {
  return std::max(0.0, figures.Imbalance(figures.asked) - figures.imbalance_interleaved);
}

Limit LimitOf(const DiagnosisFigures& figures) {
  const SizeFigures& asked = figures.asked;
  const double left = figures.Imbalance(asked);
  if (left <= kBalanced) return Limit::kNothing;
  struct Cause {
    Limit limit;
    double size;
  };
  const double drift = DriftOf(figures);
  const double component = figures.splits_by_counts ? asked.component_bound : 0;
  const double bound = std::max(asked.replica_capacity_bound, component);
  const Cause causes[] = {
      {Limit::kReplicaCapacity, asked.replica_capacity_bound},
      {Limit::kComponents, component},
      {Limit::kDrift, drift},
      {Limit::kBatchNoise, left - drift - bound},
  };
  return std::max_element(std::begin(causes), std::end(causes),
                          [](const Cause& a, const Cause& b) { return a.size < b.size; })
      ->limit;
}

SizeFigures BestOf(const DiagnosisFigures& figures) {
  const int32_t ranks = figures.asked.sizes.num_ranks;
  std::vector<SizeFigures> same{figures.asked};
  for (const SizeFigures& other : figures.others)
    if (other.sizes.num_ranks == ranks) same.push_back(other);
  double least = figures.Imbalance(figures.asked);
  for (const SizeFigures& size : same) least = std::min(least, figures.Imbalance(size));
  SizeFigures best = figures.asked;
  bool found = false;
  for (const SizeFigures& size : same) {
    if (figures.Imbalance(size) > least + kSameImbalance) continue;
    if (found && size.sizes.num_slots >= best.sizes.num_slots) continue;
    best = size;
    found = true;
  }
  if (least <= kTooUneven) return best;
  for (const SizeFigures& other : figures.others)
    if (other.sizes.num_ranks < ranks && figures.Imbalance(other) < least / 2) best = other;
  return best;
}

Worth WorthOf(double speed_up) {
  return speed_up >= kWorthSpeedUp    ? Worth::kYes
         : speed_up >= kLittleSpeedUp ? Worth::kLittle
                                      : Worth::kNo;
}

}  // namespace

std::vector<Sizes> SizesToCompare(int32_t num_experts, const Sizes& asked) {
  const int32_t ranks = asked.num_ranks;
  const int32_t one = SlotsForOneComponent(num_experts, ranks);
  std::vector<Sizes> sizes;
  const auto add = [&](int32_t num_slots, int32_t num_ranks) {
    const auto is_same = [&](const Sizes& other) {
      return other.num_slots == num_slots && other.num_ranks == num_ranks;
    };
    if (!is_same(asked) && std::none_of(sizes.begin(), sizes.end(), is_same))
      sizes.push_back({.num_slots = num_slots, .num_ranks = num_ranks});
  };
  add(RoundUp(num_experts, ranks), ranks);
  add(one, ranks);
  add(one + ranks, ranks);
  if (ranks % 2 == 0) add(SlotsForOneComponent(num_experts, ranks / 2), ranks / 2);
  if (ranks * 2 <= num_experts) add(SlotsForOneComponent(num_experts, ranks * 2), ranks * 2);
  return sizes;
}

SizeFigures MeasureSizes(const DiagnosisInput& input, const Sizes& sizes) {
  const std::vector<double> total = input.recorded.Sum();
  const Placement greedy = TensorRtLlmPlacement(std::vector<float>(total.begin(), total.end()),
                                                sizes.num_slots, sizes.num_ranks);
  const Placement planned = PlanPlacement(input.recorded, {.num_ranks = sizes.num_ranks,
                                                           .num_slots = sizes.num_slots,
                                                           .seed = input.seed,
                                                           .max_moves = input.max_moves});
  const PlacementBounds bounds = BoundPlacements(input.measured, sizes);
  SizeFigures figures{
      .sizes = sizes,
      .imbalance_even = JudgePlacement(greedy, input.measured).imbalance_even,
      .imbalance_even_seen = JudgePlacement(greedy, input.recorded).imbalance_even,
      .imbalance_optimal = JudgePlacement(planned, input.measured).imbalance_optimal,
      .imbalance_seen = JudgePlacement(planned, input.recorded).imbalance_optimal,
      .replica_capacity_bound = bounds.replica_capacity,
      .component_bound = bounds.component,
      .fewest_components = static_cast<double>(bounds.fewest_components)};
  figures.imbalance_search = figures.imbalance_even;
  figures.imbalance_search_seen = figures.imbalance_even_seen;
  if (!input.searches_for_even) return figures;
  const Placement searched = PlanForEvenSplit(
      input.recorded, {.sizes = sizes, .seed = input.seed, .proposals = kEvenProposals});
  figures.imbalance_search = JudgePlacement(searched, input.measured).imbalance_even;
  figures.imbalance_search_seen = JudgePlacement(searched, input.recorded).imbalance_even;
  return figures;
}

double ContiguousImbalance(const BatchLoads& measured, int32_t num_ranks) {
  const int32_t slots = RoundUp(measured.num_experts, num_ranks);
  return JudgePlacement(ContiguousPlacement(measured.num_experts, slots, num_ranks), measured)
      .imbalance_even;
}

Diagnosis Decide(const DiagnosisFigures& figures) {
  const double now = 1 + figures.imbalance_now;
  Diagnosis diagnosis{.speed_up = now / (1 + figures.Imbalance(figures.asked)),
                      .limit = LimitOf(figures),
                      .drift = DriftOf(figures),
                      .best = BestOf(figures)};
  diagnosis.best_speed_up = now / (1 + figures.Imbalance(diagnosis.best));
  diagnosis.worth = WorthOf(diagnosis.speed_up);
  diagnosis.best_worth = WorthOf(diagnosis.best_speed_up);
  const double gain = figures.imbalance_now - diagnosis.best.imbalance_optimal;
  const double even = std::min(diagnosis.best.imbalance_even, diagnosis.best.imbalance_search);
  const double by_split = even - diagnosis.best.imbalance_optimal;
  diagnosis.needs_split =
      WorthOf(now / (1 + diagnosis.best.imbalance_optimal)) != Worth::kNo && by_split > gain / 2;
  return diagnosis;
}

std::string WorthName(Worth worth) {
  switch (worth) {
    case Worth::kNo:
      return "no";
    case Worth::kLittle:
      return "little";
    case Worth::kYes:
      return "yes";
  }
  return "";
}

std::string LimitName(Limit limit) {
  switch (limit) {
    case Limit::kNothing:
      return "nothing";
    case Limit::kReplicaCapacity:
      return "replica_capacity";
    case Limit::kComponents:
      return "components";
    case Limit::kDrift:
      return "drift";
    case Limit::kBatchNoise:
      return "batch_noise";
  }
  return "";
}

}  // namespace wideload::eplb
