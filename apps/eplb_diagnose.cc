// `wideload eplb diagnose`: whether balancing is worth it for a recorded load, what limits it and
// which sizes to take.

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "eplb/replay/diagnosis.h"
#include "eplb/replay/routing_sampler.h"
#include "eplb_commands.h"

namespace wideload::apps {
namespace {

struct DiagnoseFlags {
  LoadFlags loads;
  int32_t ep_size = 0;
  int32_t num_slots = 0;
  std::optional<int32_t> top_k;  // this and the next two: of batches that are drawn
  std::optional<int64_t> tokens_per_rank;
  std::optional<double> wobble;
  int32_t max_layers = 8;
  uint64_t seed = 1;
  bool json = false;
};

// What is drawn for a layer when the source has no batches of its own.
constexpr int32_t kDrawnIterations = 40;
constexpr int32_t kTopK = 8;
constexpr int64_t kTokensPerRank = 128;
constexpr double kWobble = 0.1;

struct Halves {
  eplb::BatchLoads recorded;
  eplb::BatchLoads measured;
};

enum class Order {
  kInTime,      // the first half of the iterations to plan from, the second to measure on
  kAlternating  // every other one to plan from, so that no drift lies between the two
};

Halves SplitInHalves(const eplb::BatchLoads& batches, Order order) {
  const eplb::BatchLoads loaded = batches.WithLoad();
  Halves halves{{loaded.num_experts}, {loaded.num_experts}};
  for (int32_t i = 0; i < loaded.size(); ++i) {
    const bool records = order == Order::kInTime ? i < loaded.size() / 2 : i % 2 == 1;
    (records ? halves.recorded : halves.measured).Add(loaded.At(i));
  }
  return halves;
}

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

// Of the layers with load, max_layers in equal steps with the first and the last among them.
std::vector<int32_t> SampledLayers(const RecordedLoads& recorded, int32_t max_layers) {
  std::vector<int32_t> loaded;
  for (const auto& [layer, loads] : recorded.layers)
    if (eplb::HasLoad(loads.Sum())) loaded.push_back(layer);
  const auto all = static_cast<int32_t>(loaded.size());
  if (max_layers == 0 || all <= max_layers) return loaded;
  std::vector<int32_t> sampled;
  for (int32_t i = 0; i < max_layers; ++i)
    sampled.push_back(loaded[static_cast<size_t>(
        max_layers == 1 ? all / 2 : static_cast<int64_t>(i) * (all - 1) / (max_layers - 1))]);
  return sampled;
}

// The two halves of each of these layers.
std::vector<Halves> HalvesOfLayers(const DiagnoseFlags& flags, const RecordedLoads& recorded,
                                   const std::vector<int32_t>& layers, Order order) {
  std::vector<Halves> halves(layers.size());
  ForEachLayer(layers.size(), [&](size_t i) {
    const eplb::BatchLoads& loads = recorded.layers.at(layers[i]);
    halves[i] = SplitInHalves(
        recorded.has_batches ? loads : DrawIterations(flags, loads.Sum(), layers[i]), order);
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
    rows[l] = eplb::MeasureSizes(
        {.recorded = layers[l].recorded, .measured = layers[l].measured, .seed = flags.seed},
        sizes);
  });
  eplb::SizeFigures mean{.sizes = sizes, .fewest_components = rows[0].fewest_components};
  const auto n = static_cast<double>(rows.size());
  for (const eplb::SizeFigures& row : rows)
    for (double eplb::SizeFigures::*figure :
         {&eplb::SizeFigures::imbalance_even, &eplb::SizeFigures::imbalance_optimal,
          &eplb::SizeFigures::imbalance_seen, &eplb::SizeFigures::replica_capacity_bound,
          &eplb::SizeFigures::component_bound})
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

eplb::DiagnosisFigures Measure(const DiagnoseFlags& flags, const RecordedLoads& recorded,
                               const std::vector<int32_t>& sampled) {
  const std::vector<Halves> layers = HalvesOfLayers(flags, recorded, sampled, Order::kInTime);
  const std::vector<Halves> mixed = HalvesOfLayers(flags, recorded, sampled, Order::kAlternating);
  const eplb::Sizes asked{.num_slots = flags.num_slots, .num_ranks = flags.ep_size};
  eplb::DiagnosisFigures figures{
      .num_experts = recorded.num_experts,
      .choices_per_iteration = ChoicesPerIteration(layers),
      .asked = MeasureAllLayers(flags, layers, asked),
      .imbalance_interleaved = MeasureAllLayers(flags, mixed, asked).imbalance_optimal,
      .others = {}};
  figures.sampling_floor =
      eplb::SamplingFloor(static_cast<int64_t>(figures.choices_per_iteration), flags.ep_size);
  for (const Halves& layer : layers)
    figures.imbalance_now += eplb::ContiguousImbalance(layer.measured, flags.ep_size) /
                             static_cast<double>(layers.size());
  for (const eplb::Sizes& sizes : eplb::SizesToCompare(recorded.num_experts, asked))
    figures.others.push_back(MeasureAllLayers(flags, layers, sizes));
  return figures;
}

Json SizeJson(const eplb::SizeFigures& figures) {
  return {{"num_slots", figures.sizes.num_slots},
          {"ep_size", figures.sizes.num_ranks},
          {"imbalance_even", figures.imbalance_even},
          {"imbalance_optimal", figures.imbalance_optimal},
          {"imbalance_on_recorded", figures.imbalance_seen},
          {"bound_replica_capacity", figures.replica_capacity_bound},
          {"bound_component", figures.component_bound},
          {"fewest_components", figures.fewest_components}};
}

Json DiagnosisJson(const eplb::DiagnosisFigures& figures, const eplb::Diagnosis& diagnosis,
                   const std::vector<int32_t>& sampled) {
  Json others = Json::array();
  for (const eplb::SizeFigures& other : figures.others) others.push_back(SizeJson(other));
  return {{"worth", eplb::WorthName(diagnosis.worth)},
          {"limit", eplb::LimitName(diagnosis.limit)},
          {"speed_up", diagnosis.speed_up},
          {"needs_split", diagnosis.needs_split},
          {"best", SizeJson(diagnosis.best)},
          {"asked", SizeJson(figures.asked)},
          {"others", others},
          {"num_experts", figures.num_experts},
          {"layers", sampled},
          {"routed_tokens_per_iteration", figures.choices_per_iteration},
          {"imbalance_contiguous", figures.imbalance_now},
          {"imbalance_interleaved", figures.imbalance_interleaved},
          {"sampling_floor", figures.sampling_floor},
          {"text", eplb::DiagnosisText(figures, diagnosis)}};
}

void Diagnose(DiagnoseFlags flags) {
  const RecordedLoads recorded = ReadRecordedLoads(flags.loads);
  flags.ep_size = EpSizeOf(flags.ep_size, recorded);
  if (flags.num_slots == 0)
    flags.num_slots = (recorded.num_experts + flags.ep_size - 1) / flags.ep_size * flags.ep_size;
  CheckNumSlots(recorded.num_experts, flags.num_slots, flags.ep_size);
  if (recorded.has_batches && (flags.tokens_per_rank || flags.top_k || flags.wobble))
    Throw(ErrorKind::kInvalid,
          "--tokens_per_rank, --top_k and --wobble are for --loads without batches of its own; "
          "here the recorded ones are measured");
  if (!recorded.has_batches)
    LogInfo(
        "this load table has no batches: {} are drawn per layer with {} tokens a rank, top-{}, "
        "and a wobble of {} per expert and batch",
        kDrawnIterations, flags.tokens_per_rank.value_or(kTokensPerRank),
        flags.top_k.value_or(kTopK), flags.wobble.value_or(kWobble));
  const std::vector<int32_t> sampled = SampledLayers(recorded, flags.max_layers);
  if (sampled.empty()) Throw(ErrorKind::kInvalid, "no layer has any load; nothing to diagnose");
  if (sampled.size() < recorded.layers.size())
    LogInfo("looking at {} of {} layers: {} (--max_layers 0: all with load)", sampled.size(),
            recorded.layers.size(), fmt::join(sampled, ", "));
  const eplb::DiagnosisFigures figures = Measure(flags, recorded, sampled);
  const eplb::Diagnosis diagnosis = eplb::Decide(figures);
  WriteFileWhole("-", flags.json ? DumpJson(DiagnosisJson(figures, diagnosis, sampled), 2) + "\n"
                                 : eplb::DiagnosisText(figures, diagnosis));
}

}  // namespace

void AddEplbDiagnose(Command group) {
  const Command command = group.Subcommand(
      "diagnose", "is balancing worth it here, what limits it, which slots and ranks to take");
  DiagnoseFlags& flags = command.Runs<DiagnoseFlags>(Diagnose);
  AddLoadFlags(command, flags.loads);
  command.Add("--ep-size", flags.ep_size, "ranks (default: those that recorded)").Positive();
  command
      .Add("--num-slots", flags.num_slots,
           "slots to look at beside others (default: as few as the ranks allow)")
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
