// `wideload eplb diagnose`: whether balancing is worth it for a recorded load, what limits it and
// which sizes to take.

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "checkpoint/expert_layers.h"
#include "checkpoint/model_config.h"
#include "eplb/replay/diagnosis.h"
#include "eplb/replay/routing_sampler.h"
#include "eplb_commands.h"
#include "eplb_halves.h"
#include "eplb_verdict.h"

namespace wideload::apps {
namespace {

struct DiagnoseFlags {
  LoadFlags loads;
  TargetEngineFlags engine;
  std::string model;
  int32_t ep_size = 0;
  int32_t num_slots = 0;
  std::optional<int32_t> top_k;  // this and the next two: of batches that are drawn
  std::optional<int64_t> tokens_per_rank;
  std::optional<double> wobble;
  int32_t max_layers = 8;
  uint64_t seed = 1;
  bool json = false;
  bool splits_by_counts = false;   // told by the engine, not by a flag of its own
  bool searches_for_even = false;  // for an even split, where recorded batches tell something
};

// What is drawn for a layer when the source has no batches of its own and the engine splits each
// batch by its counts, or batches are asked for by their size or wobble. Else the source's totals
// are the one batch: what chance adds to single batches is no imbalance of experts.
constexpr int32_t kDrawnIterations = 40;
constexpr int32_t kTopK = 8;
constexpr int64_t kTokensPerRank = 128;
constexpr double kWobble = 0.1;

eplb::BatchLoads DrawIterations(const DiagnoseFlags& flags, const std::vector<double>& loads,
                                int32_t layer) {
  eplb::RoutingSampler sampler(loads, flags.top_k.value_or(kTopK),
                               flags.seed * 1000003 + static_cast<uint64_t>(layer));
  eplb::BatchLoads iterations{static_cast<int32_t>(loads.size())};
  for (int32_t i = 0; i < kDrawnIterations; ++i) {
    std::vector<double> counts(loads.size(), 0.0);
    for (const uint16_t id :
         sampler.Sample(flags.tokens_per_rank.value_or(kTokensPerRank) * flags.ep_size,
                        flags.wobble.value_or(kWobble)))
      counts[id] += 1;
    iterations.Add(counts);
  }
  return iterations;
}

bool Draws(const DiagnoseFlags& flags, const RecordedLoads& recorded) {
  return !recorded.has_batches &&
         (flags.splits_by_counts || flags.tokens_per_rank.has_value() || flags.wobble.has_value());
}

// What plans are made from and measured on, of one layer.
Halves HalvesOf(const DiagnoseFlags& flags, const RecordedLoads& recorded, int32_t layer,
                Order order) {
  const eplb::BatchLoads& loads = recorded.layers.at(layer);
  if (recorded.has_batches) return SplitInHalves(loads, order);
  if (Draws(flags, recorded))
    return SplitInHalves(DrawIterations(flags, loads.Sum(), layer), order);
  return {.recorded = loads.WithLoad(), .measured = loads.WithLoad()};
}

// The two halves of each of these layers.
std::vector<Halves> HalvesOfLayers(const DiagnoseFlags& flags, const RecordedLoads& recorded,
                                   const std::vector<int32_t>& layers, Order order) {
  std::vector<Halves> halves(layers.size());
  ForEachLayer(layers.size(), [&](size_t i) {
    halves[i] = HalvesOf(flags, recorded, layers[i], order);
    if (halves[i].recorded.size() == 0)
      Throw(ErrorKind::kInvalid,
            "layer {} has {} iterations with load; at least 2 are needed, one to plan from and one "
            "to measure on",
            layers[i], halves[i].measured.size());
  });
  return halves;
}

eplb::SizeFigures MeasureAllLayers(const DiagnoseFlags& flags, const std::vector<Halves>& layers,
                                   const eplb::Sizes& sizes) {
  std::vector<eplb::SizeFigures> rows(layers.size());
  ForEachLayer(layers.size(), [&](size_t l) {
    rows[l] = eplb::MeasureSizes({.recorded = layers[l].recorded,
                                  .measured = layers[l].measured,
                                  .searches_for_even = flags.searches_for_even,
                                  .seed = flags.seed},
                                 sizes);
  });
  eplb::SizeFigures mean{
      .sizes = sizes, .imbalance_search = 0, .fewest_components = rows[0].fewest_components};
  const auto n = static_cast<double>(rows.size());
  for (const eplb::SizeFigures& row : rows)
    for (double eplb::SizeFigures::*figure :
         {&eplb::SizeFigures::imbalance_even, &eplb::SizeFigures::imbalance_even_seen,
          &eplb::SizeFigures::imbalance_search, &eplb::SizeFigures::imbalance_search_seen,
          &eplb::SizeFigures::imbalance_optimal, &eplb::SizeFigures::imbalance_seen,
          &eplb::SizeFigures::replica_capacity_bound, &eplb::SizeFigures::component_bound})
      mean.*figure += row.*figure / n;
  return mean;
}

double ChoicesPerIteration(const std::vector<Halves>& layers) {
  double choices = 0;
  double iterations = 0;
  for (const Halves& layer : layers) {
    for (const double load : layer.measured.loads) choices += load;
    iterations += layer.measured.size();
  }
  return choices / iterations;
}

// Whether what ran is known slot by slot, on the ranks asked about.
bool KnowsLayout(const DiagnoseFlags& flags, const RecordedLoads& recorded) {
  if (recorded.slots.empty()) return false;
  const int32_t ranks = recorded.ep_size > 0 ? recorded.ep_size : flags.ep_size;
  return ranks == flags.ep_size && recorded.slots.begin()->second.num_experts % ranks == 0;
}

// Of the layout that ran, slot by slot, or of experts in order, with an even split; on the batches
// that plans are measured on. For a table without batches on its totals.
double ImbalanceNow(const DiagnoseFlags& flags, const RecordedLoads& recorded,
                    const std::vector<int32_t>& layers, bool of_layout) {
  double sum = 0;
  for (const int32_t layer : layers) {
    const eplb::BatchLoads& loads =
        of_layout ? recorded.slots.at(layer) : recorded.layers.at(layer);
    sum += eplb::ContiguousImbalance(
        recorded.has_batches ? SplitInHalves(loads, Order::kInTime).measured : loads.WithLoad(),
        flags.ep_size);
  }
  return sum / static_cast<double>(layers.size());
}

// What was measured: all layers and iterations of the layout that ran.
double ImbalanceRecorded(const DiagnoseFlags& flags, const RecordedLoads& recorded) {
  double sum = 0;
  int32_t num_layers = 0;
  for (const auto& [layer, slots] : recorded.slots) {
    if (!eplb::HasLoad(slots.Sum())) continue;
    sum += eplb::ContiguousImbalance(slots.WithLoad(), flags.ep_size);
    ++num_layers;
  }
  return sum / num_layers;
}

eplb::DiagnosisFigures Measure(const DiagnoseFlags& flags, const RecordedLoads& recorded,
                               const std::vector<int32_t>& sampled) {
  const std::vector<Halves> layers = HalvesOfLayers(flags, recorded, sampled, Order::kInTime);
  const std::vector<Halves> mixed = HalvesOfLayers(flags, recorded, sampled, Order::kAlternating);
  const eplb::Sizes asked{.num_slots = flags.num_slots, .num_ranks = flags.ep_size};
  eplb::DiagnosisFigures figures{
      .splits_by_counts = flags.splits_by_counts,
      .num_experts = recorded.num_experts,
      .choices_per_iteration = ChoicesPerIteration(layers),
      .imbalance_now = ImbalanceNow(flags, recorded, sampled, KnowsLayout(flags, recorded)),
      .asked = MeasureAllLayers(flags, layers, asked)};
  figures.imbalance_interleaved = figures.Imbalance(MeasureAllLayers(flags, mixed, asked));
  if (!recorded.has_batches)
    figures.choices_per_iteration =
        static_cast<double>(flags.tokens_per_rank.value_or(kTokensPerRank) * flags.ep_size *
                            flags.top_k.value_or(kTopK));
  figures.sampling_floor =
      eplb::SamplingFloor(static_cast<int64_t>(figures.choices_per_iteration), flags.ep_size);
  for (const eplb::Sizes& sizes : eplb::SizesToCompare(recorded.num_experts, asked))
    figures.others.push_back(MeasureAllLayers(flags, layers, sizes));
  return figures;
}

Json SizeJson(const eplb::SizeFigures& figures) {
  return {{"num_slots", figures.sizes.num_slots},
          {"ep_size", figures.sizes.num_ranks},
          {"imbalance_even", figures.imbalance_even},
          {"imbalance_even_on_recorded", figures.imbalance_even_seen},
          {"imbalance_policy_even", figures.imbalance_search},
          {"imbalance_optimal", figures.imbalance_optimal},
          {"imbalance_on_recorded", figures.imbalance_seen},
          {"bound_replica_capacity", figures.replica_capacity_bound},
          {"bound_component", figures.component_bound},
          {"fewest_components", figures.fewest_components}};
}

Json DiagnosisJson(const eplb::DiagnosisFigures& figures, const eplb::Diagnosis& diagnosis,
                   const VerdictContext& context, const std::vector<int32_t>& sampled) {
  Json others = Json::array();
  for (const eplb::SizeFigures& other : figures.others) others.push_back(SizeJson(other));
  const bool asked = context.asks_slots;
  return {{"worth", eplb::WorthName(asked ? diagnosis.worth : diagnosis.best_worth)},
          {"limit", eplb::LimitName(diagnosis.limit)},
          {"speed_up", asked ? diagnosis.speed_up : diagnosis.best_speed_up},
          {"worth_of_best", eplb::WorthName(diagnosis.best_worth)},
          {"speed_up_of_best", diagnosis.best_speed_up},
          {"needs_split", diagnosis.needs_split},
          {"engine", context.engine.traits ? std::string(context.engine.traits->name) : ""},
          {"split", formats::SplitName(context.engine.split)},
          {"best", SizeJson(diagnosis.best)},
          {"asked", SizeJson(figures.asked)},
          {"others", others},
          {"num_experts", figures.num_experts},
          {"layers", sampled},
          {"routed_tokens_per_iteration", figures.choices_per_iteration},
          {"imbalance_now", figures.imbalance_now},
          {"now_is", context.now},
          {"imbalance_interleaved", figures.imbalance_interleaved},
          {"sampling_floor", figures.sampling_floor},
          {"text", VerdictText(figures, diagnosis, context)}};
}

// Bytes of slots and KV cache of --model.
SlotCost CostOf(const DiagnoseFlags& flags, size_t num_layers) {
  if (flags.model.empty()) return {};
  const checkpoint::ModelConfig model = checkpoint::ReadModelConfig(flags.model);
  const checkpoint::ExpertLayers experts = checkpoint::FindExpertLayers(flags.model, model);
  if (!experts.expert_bytes)
    LogWarn("{}: bytes of an expert are not known: {}", flags.model, experts.storage);
  return {.expert_bytes = experts.expert_bytes,
          .num_layers = experts.layers.empty() ? num_layers : experts.layers.size(),
          .kv_bytes_per_token = experts.kv_bytes_per_token};
}

std::string MeasuredOn(const DiagnoseFlags& flags, const RecordedLoads& recorded) {
  if (recorded.has_batches)
    return fmt::format(
        "the second half of {} recorded iterations, which plans from the first half have not seen",
        recorded.layers.begin()->second.size());
  if (Draws(flags, recorded))
    return "batches drawn from the table, but for the figure before, which is of its totals";
  return "the table's totals, as it has no batches";
}

void CheckDrawFlags(const DiagnoseFlags& flags, const RecordedLoads& recorded) {
  if (recorded.has_batches && (flags.tokens_per_rank || flags.top_k || flags.wobble))
    Throw(ErrorKind::kInvalid,
          "--tokens_per_rank, --top_k and --wobble are for --loads without batches of its own; "
          "here the recorded ones are measured");
  if (Draws(flags, recorded))
    LogInfo(
        "this load table has no batches: {} are drawn per layer with {} tokens a rank, top-{}, "
        "and a wobble of {} per expert and batch",
        kDrawnIterations, flags.tokens_per_rank.value_or(kTokensPerRank),
        flags.top_k.value_or(kTopK), flags.wobble.value_or(kWobble));
}

// Who ran spare slots asks about these, unless he says otherwise.
void TakeSlotsThatRan(const RecordedLoads& recorded, DiagnoseFlags& flags,
                      VerdictContext& context) {
  if (!KnowsLayout(flags, recorded)) return;
  const int32_t num_slots = recorded.slots.begin()->second.num_experts;
  if (num_slots <= recorded.num_experts) return;
  LogInfo("answering for the {} slots that ran (--num_slots asks for others)", num_slots);
  flags.num_slots = num_slots;
  context.asks_slots = true;
}

void Diagnose(DiagnoseFlags flags) {
  const RecordedLoads recorded = ReadRecordedLoads(flags.loads);
  VerdictContext context{
      .engine = ChooseEngine(flags.engine, recorded.engine, flags.loads.Source()),
      .asks_slots = flags.num_slots > 0};
  flags.splits_by_counts = context.engine.SplitsByCounts();
  flags.searches_for_even = !flags.splits_by_counts && recorded.has_batches;
  const RankChoice ranks = ChooseRanks(
      {{flags.ep_size, "--ep_size"}, {EpSizeOf(flags.ep_size, recorded), recorded.ep_size_from}});
  flags.ep_size = ranks.ep_size;
  if (flags.num_slots == 0) TakeSlotsThatRan(recorded, flags, context);
  if (flags.num_slots == 0)
    flags.num_slots = (recorded.num_experts + flags.ep_size - 1) / flags.ep_size * flags.ep_size;
  CheckNumSlots(recorded.num_experts, flags.num_slots, flags.ep_size);
  CheckDrawFlags(flags, recorded);
  const std::vector<int32_t> sampled = SampledLayers(recorded, flags.max_layers);
  if (sampled.empty()) Throw(ErrorKind::kInvalid, "no layer has any load; nothing to diagnose");
  LogInfo("{}; {} ranks: {}", context.engine.Sentence(), ranks.ep_size, ranks.from);
  if (sampled.size() < recorded.layers.size())
    LogInfo("looking at {} of {} layers: {} (--max_layers 0: all with load)", sampled.size(),
            recorded.layers.size(), fmt::join(sampled, ", "));
  context.cost = CostOf(flags, recorded.layers.size());
  context.measured_on = MeasuredOn(flags, recorded);
  context.now =
      KnowsLayout(flags, recorded)
          ? fmt::format("the {} slots that ran", recorded.slots.begin()->second.num_experts)
          : "experts in order";
  const eplb::DiagnosisFigures figures = Measure(flags, recorded, sampled);
  if (KnowsLayout(flags, recorded))
    LogInfo(
        "as measured, the {} slots that ran: imbalance ratio {:.3f} over all iterations and "
        "layers",
        recorded.slots.begin()->second.num_experts, ImbalanceRecorded(flags, recorded));
  const eplb::Diagnosis diagnosis = eplb::Decide(figures);
  Json document = DiagnosisJson(figures, diagnosis, context, sampled);
  document["imbalance_contiguous"] = ImbalanceNow(flags, recorded, sampled, false);
  document["ep_size"] = ranks.ep_size;
  document["ep_size_from"] = ranks.from;
  if (KnowsLayout(flags, recorded))
    document["imbalance_recorded"] = ImbalanceRecorded(flags, recorded);
  WriteFileWhole(
      "-", flags.json ? DumpJson(document, 2) + "\n" : VerdictText(figures, diagnosis, context));
}

}  // namespace

void AddEplbDiagnose(Command group) {
  const Command command = group.Subcommand(
      "diagnose", "is balancing worth it here, what limits it, which slots and ranks to take");
  DiagnoseFlags& flags = command.Runs<DiagnoseFlags>(Diagnose);
  AddLoadFlags(command, flags.loads);
  AddTargetEngineFlags(command, flags.engine);
  command.Add("-m,--model", flags.model,
              "the model's folder: adds bytes of weights and KV cache to each advice");
  command.Add("--ep-size", flags.ep_size, "ranks (default: those that recorded)").Positive();
  command
      .Add("--num-slots", flags.num_slots,
           "slots to answer for (default: those that ran, if some were spare; else the best of "
           "several sizes)")
      .Positive();
  command
      .Add("--max-layers", flags.max_layers,
           "layers to look at, in equal steps from the first with load to the last; 0: all")
      .NonNegative()
      .ShowDefault();
  command
      .Add(
          "--tokens-per-rank", flags.tokens_per_rank,
          fmt::format("tokens of a rank and batch, drawn for --loads without batches (default: {})",
                      kTokensPerRank))
      .Positive();
  command
      .Add("--top-k", flags.top_k,
           fmt::format("experts per token, drawn likewise (default: {})", kTopK))
      .Positive();
  command
      .Add("--wobble", flags.wobble,
           fmt::format("how much an expert's share varies between drawn batches (default: {})",
                       kWobble))
      .NonNegative();
  command.Add("--seed", flags.seed, "for drawing and planning").ShowDefault();
  command.Add("--json", flags.json, "one JSON document instead of three sentences");
}

}  // namespace wideload::apps
