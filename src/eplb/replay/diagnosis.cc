#include "eplb/replay/diagnosis.h"

#include <fmt/format.h>

#include <algorithm>

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

int32_t RoundUp(int32_t value, int32_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

double DriftOf(const DiagnosisFigures& figures) {
  return std::max(0.0, figures.asked.imbalance_optimal - figures.imbalance_interleaved);
}

Limit LimitOf(const DiagnosisFigures& figures) {
  const SizeFigures& asked = figures.asked;
  if (asked.imbalance_optimal <= kBalanced) return Limit::kNothing;
  struct Cause {
    Limit limit;
    double size;
  };
  const double drift = DriftOf(figures);
  const double bound = std::max(asked.replica_capacity_bound, asked.component_bound);
  const Cause causes[] = {
      {Limit::kReplicaCapacity, asked.replica_capacity_bound},
      {Limit::kComponents, asked.component_bound},
      {Limit::kDrift, drift},
      {Limit::kBatchNoise, asked.imbalance_optimal - drift - bound},
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
  double least = figures.asked.imbalance_optimal;
  for (const SizeFigures& size : same) least = std::min(least, size.imbalance_optimal);
  SizeFigures best = figures.asked;
  bool found = false;
  for (const SizeFigures& size : same) {
    if (size.imbalance_optimal > least + kSameImbalance) continue;
    if (found && size.sizes.num_slots >= best.sizes.num_slots) continue;
    best = size;
    found = true;
  }
  if (least <= kTooUneven) return best;
  for (const SizeFigures& other : figures.others)
    if (other.sizes.num_ranks < ranks && other.imbalance_optimal < least / 2) best = other;
  return best;
}

std::string WorthSentence(const DiagnosisFigures& figures, const Diagnosis& diagnosis) {
  const SizeFigures& best = diagnosis.best;
  static constexpr const char* kAnswers[] = {"Balancing is not worth it here",
                                             "Balancing brings little here",
                                             "Balancing is worth it here"};
  return fmt::format(
      "{}: with experts in order on {} ranks the busiest rank has {:.1f} % more tokens than the "
      "mean; {} slots on {} ranks bring this to {:.1f} % with an even split and {:.1f} % with the "
      "optimal split of each batch, {:.2f} times the speed of expert work{}.",
      kAnswers[static_cast<int>(diagnosis.worth)], figures.asked.sizes.num_ranks,
      100 * figures.imbalance_now, best.sizes.num_slots, best.sizes.num_ranks,
      100 * best.imbalance_even, 100 * best.imbalance_optimal, diagnosis.speed_up,
      diagnosis.needs_split ? " (most of it from the split, which the engine must do per batch)"
                            : "");
}

std::string LimitSentence(const DiagnosisFigures& figures, const Diagnosis& diagnosis) {
  const SizeFigures& asked = figures.asked;
  const std::string sizes =
      fmt::format("With {} slots on {} ranks", asked.sizes.num_slots, asked.sizes.num_ranks);
  const double left = 100 * asked.imbalance_optimal;
  const std::string floor = fmt::format(
      "no static placement with a fixed split gets below about {:.1f} % with {:.0f} routed tokens "
      "a "
      "batch",
      100 * figures.sampling_floor, figures.choices_per_iteration);
  switch (diagnosis.limit) {
    case Limit::kNothing:
      return fmt::format("{} nothing limits the optimal split ({:.1f} % left); {}.", sizes, left,
                         floor);
    case Limit::kReplicaCapacity:
      return fmt::format(
          "{} the limit is too few replicas: the hottest experts alone keep any placement at "
          "{:.1f} "
          "% or more ({:.1f} % reached); {}.",
          sizes, 100 * asked.replica_capacity_bound, left, floor);
    case Limit::kComponents:
      return fmt::format(
          "{} the limit is that spare slots join the ranks into {:.0f} components at best, between "
          "which no split moves tokens: about {:.1f} % of {:.1f} %; {}.",
          sizes, asked.fewest_components, 100 * asked.component_bound, left, floor);
    case Limit::kDrift:
      return fmt::format(
          "{} the limit is drift: a plan shows {:.1f} % on batches of the same time as those it "
          "was "
          "made from and {:.1f} % on later ones, so {:.1f} points are for replanning or repair "
          "while "
          "serving; {}.",
          sizes, 100 * figures.imbalance_interleaved, left, 100 * DriftOf(figures), floor);
    case Limit::kBatchNoise:
      return fmt::format(
          "{} the limit is the noise of single batches: a plan shows {:.1f} % on the batches it "
          "was "
          "made from and {:.1f} % on others, whatever their order; larger batches, more recorded "
          "ones or more slots make it smaller; {}.",
          sizes, 100 * asked.imbalance_seen, left, floor);
  }
  return "";
}

std::string OtherRanks(const DiagnosisFigures& figures, const Diagnosis& diagnosis) {
  std::string text;
  for (const SizeFigures& other : figures.others) {
    if (other.sizes.num_ranks == diagnosis.best.sizes.num_ranks ||
        other.sizes.num_ranks == figures.asked.sizes.num_ranks)
      continue;
    text += fmt::format(
        "{} {:.1f} % on {} ranks with {}", text.empty() ? "; the same batches show" : " and",
        100 * other.imbalance_optimal, other.sizes.num_ranks, other.sizes.num_slots);
  }
  return text;
}

std::string SizeSentence(const DiagnosisFigures& figures, const Diagnosis& diagnosis) {
  const Sizes& best = diagnosis.best.sizes;
  const int32_t one = SlotsForOneComponent(figures.num_experts, best.num_ranks);
  return fmt::format(
      "Take --num_slots {} --ep_size {} ({} slots a rank): all ranks can form one component from "
      "{} "
      "experts + {} ranks - 1 = {} slots on, {} as a multiple of the ranks, and {} gives {:.1f} "
      "%{}.",
      best.num_slots, best.num_ranks, best.num_slots / best.num_ranks, figures.num_experts,
      best.num_ranks, figures.num_experts + best.num_ranks - 1, one, best.num_slots,
      100 * diagnosis.best.imbalance_optimal, OtherRanks(figures, diagnosis));
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
  return {.sizes = sizes,
          .imbalance_even = JudgePlacement(greedy, input.measured).imbalance_even,
          .imbalance_optimal = JudgePlacement(planned, input.measured).imbalance_optimal,
          .imbalance_seen = JudgePlacement(planned, input.recorded).imbalance_optimal,
          .replica_capacity_bound = bounds.replica_capacity,
          .component_bound = bounds.component,
          .fewest_components = static_cast<double>(bounds.fewest_components)};
}

double ContiguousImbalance(const BatchLoads& measured, int32_t num_ranks) {
  const int32_t slots = RoundUp(measured.num_experts, num_ranks);
  return JudgePlacement(ContiguousPlacement(measured.num_experts, slots, num_ranks), measured)
      .imbalance_even;
}

Diagnosis Decide(const DiagnosisFigures& figures) {
  Diagnosis diagnosis{.limit = LimitOf(figures), .best = BestOf(figures)};
  const double now = 1 + figures.imbalance_now;
  diagnosis.speed_up = now / (1 + diagnosis.best.imbalance_optimal);
  diagnosis.worth = diagnosis.speed_up >= kWorthSpeedUp    ? Worth::kYes
                    : diagnosis.speed_up >= kLittleSpeedUp ? Worth::kLittle
                                                           : Worth::kNo;
  const double gain = figures.imbalance_now - diagnosis.best.imbalance_optimal;
  const double by_split = diagnosis.best.imbalance_even - diagnosis.best.imbalance_optimal;
  diagnosis.needs_split = diagnosis.worth != Worth::kNo && by_split > gain / 2;
  return diagnosis;
}

std::string DiagnosisText(const DiagnosisFigures& figures, const Diagnosis& diagnosis) {
  return WorthSentence(figures, diagnosis) + "\n" + LimitSentence(figures, diagnosis) + "\n" +
         SizeSentence(figures, diagnosis) + "\n";
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
