// What planning, splitting and repairing one layer cost on one core: CPU time of this thread on
// loads drawn here, beside the goals.
// Usage: bench_eplb [WORD]   only the rows whose name has WORD in it
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <functional>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "eplb/placement/random.h"
#include "eplb/policies/policy.h"
#include "eplb/search/repair.h"
#include "eplb/search/scenario_planner.h"
#include "eplb/split/integer_split.h"
#include "eplb/split/slot_chooser.h"
#include "eplb/split/water_filling.h"

namespace wideload::bench {
namespace {

constexpr uint64_t kSeed = 1;
constexpr double kWobble = 0.1;
constexpr int32_t kTokensPerRank = 1024;  // routed: 128 tokens, top-8

uint64_t SeedOf(int32_t layer) { return kSeed + static_cast<uint64_t>(layer); }

double CpuMilliseconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) * 1e-6;
}

// Batches of one layer: a power law over the experts in random order, which wobbles from batch to
// batch and is rounded to whole tokens.
eplb::BatchLoads Batches(int32_t experts, int32_t ranks, int32_t count, uint64_t seed) {
  eplb::Random random(seed);
  std::vector<double> share;
  for (int32_t e = 0; e < experts; ++e) share.push_back(std::pow(1 + random.Below(experts), -0.7));
  const double sum = std::accumulate(share.begin(), share.end(), 0.0);
  eplb::BatchLoads batches{experts, {}, {}};
  for (int32_t i = 0; i < count; ++i) {
    std::vector<double> load;
    for (const double s : share)
      load.push_back(std::round(s / sum * ranks * kTokensPerRank *
                                std::exp(kWobble * random.Normal() - kWobble * kWobble / 2)));
    batches.Add(load);
  }
  return batches;
}

using Work = std::function<void()>;

struct Row {
  std::string name;
  double goal;  // in the row's unit
  const char* unit;
  double per_millisecond;  // units in a millisecond / layers or batches in one repetition
  int repetitions;
  std::function<Work()> prepare;  // only called when the row is wanted
};

void Measure(const Row& row) {
  const Work work = row.prepare();
  work();
  std::vector<double> times;
  for (int i = 0; i < row.repetitions; ++i) {
    const double start = CpuMilliseconds();
    work();
    times.push_back((CpuMilliseconds() - start) * row.per_millisecond);
  }
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2];
  std::printf("%-68s %8.3f %8.3f %5g %-3s %s\n", row.name.c_str(), median, times[0], row.goal,
              row.unit, median <= row.goal ? "reached" : "MISSED");
  std::fflush(stdout);
}

struct PlanSizes {
  int32_t num_slots = 0;
  int32_t num_ranks = 1;
  eplb::NodeSizes nodes = {};
};

Row PolicyRow(const char* policy, int32_t layers, int32_t experts, const PlanSizes& sizes,
              double goal) {
  std::string name = fmt::format("plan {}, {} x {} experts, {} slots, {} ranks", policy, layers,
                                 experts, sizes.num_slots, sizes.num_ranks);
  if (sizes.nodes.num_nodes > 1) name += fmt::format(", {} nodes", sizes.nodes.num_nodes);
  const auto prepare = [=]() -> Work {
    std::vector<eplb::BatchLoads> layers_loads;
    for (int32_t l = 0; l < layers; ++l)
      layers_loads.push_back(Batches(experts, sizes.num_ranks, 1, SeedOf(l)));
    return [=] {
      for (const eplb::BatchLoads& loads : layers_loads)
        eplb::PlanLayer(eplb::FindPolicy(policy), {.loads = loads,
                                                   .num_slots = sizes.num_slots,
                                                   .num_ranks = sizes.num_ranks,
                                                   .nodes = sizes.nodes});
    };
  };
  return {name, goal, "ms", 1, 41, prepare};
}

// The scenario policy from 20 recorded batches, per layer.
Row ScenarioRow(int32_t layers, int32_t experts, int32_t slots, int32_t ranks, double goal) {
  const auto prepare = [=]() -> Work {
    std::vector<eplb::BatchLoads> recorded;
    for (int32_t l = 0; l < layers; ++l) recorded.push_back(Batches(experts, ranks, 20, SeedOf(l)));
    return [=] {
      for (const eplb::BatchLoads& batches : recorded)
        eplb::PlanPlacement(batches, {.num_ranks = ranks, .num_slots = slots, .seed = kSeed});
    };
  };
  return {
      fmt::format("plan scenario, {} experts, {} slots, {} ranks, a layer", experts, slots, ranks),
      goal,
      "ms",
      1.0 / layers,
      3,
      prepare};
}

constexpr int32_t kExperts = 256;
constexpr int32_t kSlots = 288;
constexpr int32_t kRanks = 36;
constexpr int32_t kBatches = 200;
const std::string kSizes =
    fmt::format(", {} experts, {} slots, {} ranks", kExperts, kSlots, kRanks);

eplb::Placement PlanFor(const eplb::BatchLoads& batches) {
  return eplb::PlanPlacement(batches, {.num_ranks = kRanks, .num_slots = kSlots, .seed = kSeed});
}

// Counts of every rank's tokens, [kRanks * kExperts], which sum up to `load`.
std::vector<int32_t> SpreadOverRanks(std::span<const double> load) {
  std::vector<int32_t> counts(size_t{kRanks} * kExperts);
  for (size_t e = 0; e < load.size(); ++e)
    for (size_t t = 0; t < static_cast<size_t>(load[e]); ++t)
      ++counts[(e * 7 + t) % kRanks * kExperts + e];
  return counts;
}

std::vector<Row> SplitRows() {
  const auto row = [](const std::string& what, const auto& make) {
    const auto prepare = [make]() -> Work {
      const eplb::BatchLoads batches = Batches(kExperts, kRanks, kBatches, kSeed);
      return make(batches, PlanFor(batches));
    };
    return Row{what + kSizes, 5, "us", 1e3 / kBatches, 41, prepare};
  };
  const auto fractional = [](const eplb::BatchLoads& batches, const eplb::Placement& placement) {
    return [batches, split = std::make_shared<eplb::WaterFilling>(placement)] {
      for (int32_t i = 0; i < batches.size(); ++i) split->Solve(batches.At(i));
    };
  };
  const auto whole = [](const eplb::BatchLoads& batches, const eplb::Placement& placement) {
    std::vector<std::vector<int64_t>> counts;
    for (int32_t i = 0; i < batches.size(); ++i)
      counts.emplace_back(batches.At(i).begin(), batches.At(i).end());
    return [counts, split = std::make_shared<eplb::IntegerSplit>(placement)] {
      for (const std::vector<int64_t>& of_batch : counts) split->Solve(of_batch);
    };
  };
  const auto by_rank = [](const eplb::BatchLoads& batches, const eplb::Placement& placement) {
    std::vector<std::vector<int32_t>> counts;
    for (int32_t i = 0; i < batches.size(); ++i) counts.push_back(SpreadOverRanks(batches.At(i)));
    return [counts,
            chooser = std::make_shared<eplb::SlotChooser>(placement, eplb::SplitMode::kOptimal)] {
      for (const std::vector<int32_t>& of_batch : counts) chooser->Prepare(of_batch);
    };
  };
  return {row("optimal split, fractional", fractional), row("optimal split, whole tokens", whole),
          row("optimal split, counts of each rank", by_rank)};
}

// Plans from 12 batches; then each load drifts by exp(0.25 N(0, 1)).
std::vector<Row> RepairRows() {
  const auto row = [](const std::string& what, int32_t known, const eplb::RepairOptions& options) {
    constexpr int32_t kLayers = 16;
    const auto prepare = [=]() -> Work {
      std::vector<eplb::BatchLoads> windows;
      std::vector<eplb::Placement> plans;
      for (int32_t l = 0; l < kLayers; ++l) {
        const eplb::BatchLoads before = Batches(kExperts, kRanks, 12, SeedOf(l));
        plans.push_back(PlanFor(before));
        eplb::Random random(SeedOf(l));
        std::vector<double> load = before.Mean();
        for (double& tokens : load) tokens *= std::exp(0.25 * random.Normal());
        eplb::BatchLoads& window = windows.emplace_back(eplb::BatchLoads{kExperts, {}, {}});
        for (int32_t i = 0; i < known; ++i) window.Add(before.At(i));
        window.Add(load);
      }
      return [=] {
        for (size_t l = 0; l < plans.size(); ++l)
          eplb::RepairPlacement(plans[l], windows[l], options);
      };
    };
    return Row{what + kSizes, 2, "ms", 1.0 / kLayers, 5, prepare};
  };
  return {row("repair by 2 slots, 13 batches", 12, {}),
          row("repair until 0.02, 1 batch", 0, {.max_fetched_slots = kSlots, .until = 0.02})};
}

std::vector<Row> AllRows() {
  const PlanSizes published{.num_slots = kSlots, .num_ranks = kRanks};
  const PlanSizes nodes{
      .num_slots = kSlots, .num_ranks = 32, .nodes = {.num_nodes = 4, .num_groups = 8}};
  const PlanSizes large{.num_slots = 2048, .num_ranks = 1024};
  std::vector<Row> rows = {PolicyRow("tensorrt_llm", 58, kExperts, published, 1),
                           PolicyRow("deepseek", 58, kExperts, published, 1),
                           PolicyRow("deepseek", 58, kExperts, nodes, 1),
                           PolicyRow("tensorrt_llm", 1, 1024, large, 5),
                           PolicyRow("deepseek", 1, 1024, large, 5),
                           ScenarioRow(8, 64, 96, 8, 60),
                           ScenarioRow(8, kExperts, kSlots, kRanks, 60),
                           ScenarioRow(8, kExperts, 320, 64, 60),
                           ScenarioRow(1, 1024, 2048, 1024, 2000)};
  for (const Row& row : SplitRows()) rows.push_back(row);
  for (const Row& row : RepairRows()) rows.push_back(row);
  return rows;
}

}  // namespace
}  // namespace wideload::bench

int main(int argc, char** argv) {
  std::printf("%-68s %8s %8s %5s\n", "CPU time of one thread", "median", "best", "goal");
  for (const auto& row : wideload::bench::AllRows())
    if (argc < 2 || row.name.find(argv[1]) != std::string::npos) wideload::bench::Measure(row);
  std::printf(
      "Published Python function: 941 ms for 58 x 256 -> 288 on 36 ranks (cited, not measured)\n");
}
