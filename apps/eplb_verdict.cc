#include "eplb_verdict.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/memory.h"

namespace wideload::apps {
namespace {

using eplb::Diagnosis;
using eplb::DiagnosisFigures;
using eplb::Limit;
using eplb::SizeFigures;

std::string SplitText(const DiagnosisFigures& figures, const TargetEngine& engine) {
  return figures.splits_by_counts
             ? "the optimal split of each batch"
             : fmt::format("{} split", engine.split == formats::Split::kEven
                                           ? "an even"
                                           : "a " + std::string(formats::SplitName(engine.split)));
}

// The plan that the figure of these sizes is of, where there are two for an even split.
std::string PlanText(const DiagnosisFigures& figures, const SizeFigures& size) {
  if (figures.splits_by_counts || !DiagnosisFigures::PrefersSearch(size)) return "";
  return fmt::format(" as wideload eplb plan --policy even places experts, {:.1f} % as {} does",
                     100 * size.imbalance_even, "the default policy, TensorRT-LLM's,");
}

std::string Sizes(const eplb::Sizes& sizes) {
  return fmt::format("{} slots on {} ranks", sizes.num_slots, sizes.num_ranks);
}

// The asked sizes, or the best ones when nobody asked for a number of slots.
std::string Answer(const DiagnosisFigures& figures, const Diagnosis& diagnosis,
                   const VerdictContext& context) {
  static constexpr const char* kAnswers[] = {"Balancing is not worth it here",
                                             "Balancing brings little here",
                                             "Balancing is worth it here"};
  const bool asked = context.asks_slots;
  const SizeFigures& size = asked ? figures.asked : diagnosis.best;
  const eplb::Worth worth = asked ? diagnosis.worth : diagnosis.best_worth;
  return fmt::format(
      "{} for {}: with {} on {} ranks the busiest rank has {:.1f} % more tokens than the mean; {} "
      "{} {:.1f} % with {}{} ({}), {:.2f} times the speed of expert work; measured on {}.",
      kAnswers[static_cast<int>(worth)], context.engine.Title(), context.now,
      figures.asked.sizes.num_ranks, 100 * figures.imbalance_now, Sizes(size.sizes),
      worth == eplb::Worth::kNo ? "have" : "bring this to", 100 * figures.Imbalance(size),
      SplitText(figures, context.engine), PlanText(figures, size),
      CostText(size.sizes, figures.num_experts, context.cost),
      asked ? diagnosis.speed_up : diagnosis.best_speed_up, context.measured_on);
}

std::string Floor(const DiagnosisFigures& figures) {
  return fmt::format(
      "no static placement with a fixed split gets below about {:.1f} % with {:.0f} routed tokens "
      "a "
      "batch",
      100 * figures.sampling_floor, figures.choices_per_iteration);
}

std::string LimitSentence(const DiagnosisFigures& figures, const Diagnosis& diagnosis) {
  const SizeFigures& asked = figures.asked;
  const double left = figures.Imbalance(asked);
  const std::string head = "With " + Sizes(asked.sizes);
  switch (diagnosis.limit) {
    case Limit::kNothing:
      return fmt::format("{} nothing limits it ({:.1f} % left); {}.", head, 100 * left,
                         Floor(figures));
    case Limit::kReplicaCapacity:
      return fmt::format(
          "{} the limit is too few replicas: the hottest experts alone keep any placement at "
          "{:.1f} % or more ({:.1f} % reached); {}.",
          head, 100 * std::min(asked.replica_capacity_bound, left), 100 * left, Floor(figures));
    case Limit::kComponents:
      return fmt::format(
          "{} the limit is that spare slots join the ranks into {:.0f} components at best, between "
          "which no split moves tokens: about {:.1f} % of {:.1f} %; {}.",
          head, asked.fewest_components, 100 * std::min(asked.component_bound, left), 100 * left,
          Floor(figures));
    case Limit::kDrift:
      return fmt::format(
          "{} the limit is drift: a plan shows {:.1f} % on batches of the same time as those it "
          "was "
          "made from and {:.1f} % on later ones, so {:.1f} points are for replanning or repair "
          "while "
          "serving; {}.",
          head, 100 * figures.imbalance_interleaved, 100 * left, 100 * diagnosis.drift,
          Floor(figures));
    case Limit::kBatchNoise:
      return fmt::format(
          "{} the limit is the noise of single batches: a plan shows {:.1f} % on the batches it "
          "was "
          "made from and {:.1f} % on others, whatever their order; larger batches, more recorded "
          "ones or more slots make it smaller; {}.",
          head, 100 * figures.ImbalanceSeen(asked), 100 * left, Floor(figures));
  }
  return "";
}

// Of experts whose bytes are known.
std::string WeightsText(const eplb::Sizes& sizes, const SlotCost& cost) {
  const auto per_rank = static_cast<uint64_t>(sizes.num_slots / sizes.num_ranks);
  return FormatBytes(per_rank * *cost.expert_bytes * cost.num_layers) + " of weights a rank";
}

std::string OtherRanks(const DiagnosisFigures& figures, const Diagnosis& diagnosis,
                       const SlotCost& cost) {
  std::string text;
  for (const SizeFigures& other : figures.others) {
    if (other.sizes.num_ranks == diagnosis.best.sizes.num_ranks ||
        other.sizes.num_ranks == figures.asked.sizes.num_ranks)
      continue;
    text += fmt::format(
        "{} {:.1f} % on {} ranks with {}", text.empty() ? "; the same batches show" : " and",
        100 * figures.Imbalance(other), other.sizes.num_ranks, other.sizes.num_slots);
    if (cost.expert_bytes) text += fmt::format(" ({})", WeightsText(other.sizes, cost));
  }
  return text;
}

std::string More(const DiagnosisFigures& figures, const Diagnosis& diagnosis,
                 const VerdictContext& context) {
  const eplb::Sizes& best = diagnosis.best.sizes;
  const bool is_asked = best.num_slots == figures.asked.sizes.num_slots &&
                        best.num_ranks == figures.asked.sizes.num_ranks;
  std::string text;
  if (is_asked)
    text = fmt::format(
        "No other size that was measured is better by half a point: keep "
        "--num_slots {} --ep_size {}",
        best.num_slots, best.num_ranks);
  else
    text = fmt::format("Best of what was measured: --num_slots {} --ep_size {} gives {:.1f} %, {}",
                       best.num_slots, best.num_ranks, 100 * figures.Imbalance(diagnosis.best),
                       CostText(best, figures.num_experts, context.cost));
  text += fmt::format("; {} experts on {} ranks allow {}", figures.num_experts, best.num_ranks,
                      ValidSlots(figures.num_experts, best.num_ranks));
  if (figures.splits_by_counts)
    text += fmt::format(
        "; all ranks can form one component from {} experts + {} ranks - 1 = {} slots on",
        figures.num_experts, best.num_ranks, figures.num_experts + best.num_ranks - 1);
  return text + OtherRanks(figures, diagnosis, context.cost) + ".";
}

// What an engine that splits by counts would get, for those that have another.
std::string OtherSplit(const DiagnosisFigures& figures, const Diagnosis& diagnosis) {
  if (figures.splits_by_counts || !diagnosis.needs_split) return "";
  return fmt::format(
      "An engine that splits each batch by its counts (wideload, SGLang with lp) would have {:.1f} "
      "% "
      "with {}: most of that gain is out of reach of a fixed split.\n",
      100 * diagnosis.best.imbalance_optimal, Sizes(diagnosis.best.sizes));
}

}  // namespace

std::string CostText(const eplb::Sizes& sizes, int32_t num_experts, const SlotCost& cost) {
  const int32_t per_rank = sizes.num_slots / sizes.num_ranks;
  const int32_t least = (num_experts + sizes.num_ranks - 1) / sizes.num_ranks;
  const int32_t spare = per_rank - least;
  std::string text = fmt::format("{} slots a rank", per_rank);
  if (spare > 0)
    text += fmt::format(", {:.1f} % more expert weights than with one slot per expert",
                        100.0 * spare / least);
  if (!cost.expert_bytes) return text;
  const uint64_t slot_bytes = *cost.expert_bytes * cost.num_layers;
  text += ", " + WeightsText(sizes, cost);
  if (spare <= 0) return text;
  const uint64_t more = static_cast<uint64_t>(spare) * slot_bytes;
  text += fmt::format(", {} more", FormatBytes(more));
  if (cost.kv_bytes_per_token && *cost.kv_bytes_per_token > 0)
    text += fmt::format(", the KV cache of {} tokens", more / *cost.kv_bytes_per_token);
  return text;
}

std::string VerdictText(const DiagnosisFigures& figures, const Diagnosis& diagnosis,
                        const VerdictContext& context) {
  return Answer(figures, diagnosis, context) + "\n" + LimitSentence(figures, diagnosis) + "\n" +
         More(figures, diagnosis, context) + "\n" + OtherSplit(figures, diagnosis);
}

}  // namespace wideload::apps
