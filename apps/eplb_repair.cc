// `wideload eplb repair`: changes a placement file as little as new loads ask for.
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/thread_pool.h"
#include "command_line.h"
#include "eplb/repair.h"
#include "eplb_commands.h"
#include "statistics/eplb_yaml.h"
#include "statistics/load_files.h"

namespace wideload::apps {
namespace {

struct RepairFlags {
  std::string from, loads, output;
  int32_t ep_size = 0;
  int32_t max_fetched_slots = 1 << 20;
  double until = 0.01;
  uint64_t seed = 1;
  bool json = false;
};

struct LayerRepair {
  int32_t layer = 0;
  eplb::RepairResult result;
  std::exception_ptr error;
};

std::vector<LayerRepair> RepairLayers(const RepairFlags& flags,
                                      const statistics::EplbConfig& config,
                                      const statistics::LoadTable& loads) {
  statistics::EplbTarget target;
  target.num_experts = loads.num_experts;
  target.ep_size = flags.ep_size;
  std::vector<LayerRepair> repairs;
  for (const auto& [layer, row] : loads.layers) {
    double sum = 0;
    for (const double load : row) sum += load;
    if (sum <= 0) continue;
    LayerRepair& repair = repairs.emplace_back();
    repair.layer = layer;
    repair.result.placement = statistics::LayerPlacement(config, layer, target, flags.from);
  }
  ThreadPool pool("repair", static_cast<int>(std::max(1U, std::thread::hardware_concurrency())));
  pool.Run(static_cast<int64_t>(repairs.size()), [&](int64_t i, int) {
    LayerRepair& repair = repairs[static_cast<size_t>(i)];
    try {
      eplb::Scenarios scenarios{loads.num_experts, {}, {}};
      scenarios.Add(loads.layers.at(repair.layer));
      eplb::RepairOptions options;
      options.max_fetched_slots = flags.max_fetched_slots;
      options.until = flags.until;
      options.seed = flags.seed;
      const eplb::Placement now = repair.result.placement;
      repair.result = eplb::RepairPlacement(now, scenarios, options);
    } catch (...) {
      repair.error = std::current_exception();
    }
  });
  for (const LayerRepair& repair : repairs)
    if (repair.error) std::rethrow_exception(repair.error);
  return repairs;
}

Json ReportOf(const std::vector<LayerRepair>& repairs) {
  Json layers = Json::array();
  double fetched = 0;
  double before = 0;
  double after = 0;
  const auto count = static_cast<double>(repairs.size());
  for (const LayerRepair& repair : repairs) {
    layers.push_back({{"layer", repair.layer},
                      {"fetched_slots", repair.result.fetched_slots},
                      {"imbalance_before", repair.result.imbalance_before},
                      {"imbalance_after", repair.result.imbalance_after}});
    fetched += repair.result.fetched_slots / count;
    before += repair.result.imbalance_before / count;
    after += repair.result.imbalance_after / count;
  }
  return {{"layers", layers},
          {"slots_fetched_per_layer", fetched},
          {"imbalance_before", before},
          {"imbalance_after", after}};
}

void Repair(const RepairFlags& flags) {
  if (flags.until < 0)
    Throw(ErrorKind::kInvalid, "--until is {}; it must be 0 or more", flags.until);
  if (flags.max_fetched_slots < 0)
    Throw(ErrorKind::kInvalid, "--max-fetched-slots is {}; it must be 0 or more",
          flags.max_fetched_slots);
  statistics::EplbConfig config = statistics::ReadEplbYaml(flags.from);
  const statistics::LoadTable loads = statistics::ReadLoads(flags.loads);
  const std::vector<LayerRepair> repairs = RepairLayers(flags, config, loads);
  if (repairs.empty()) Throw(ErrorKind::kInvalid, "{} has no layer with load", flags.loads);
  for (const LayerRepair& repair : repairs) {
    std::vector<int32_t>& slots = config.layers[repair.layer];
    slots.clear();
    for (const ExpertId expert : repair.result.placement.slot_expert) slots.push_back(expert.value);
  }
  statistics::WriteEplbYaml(flags.output, config);
  const Json report = ReportOf(repairs);
  if (flags.output == "-") return;
  if (flags.json)
    std::printf("%s\n", DumpJson(report, 2).c_str());
  else
    std::printf(
        "%zu layers: imbalance under the optimal split %.4f before, %.4f after; %.2f slots "
        "fetched per layer\n",
        repairs.size(), report["imbalance_before"].get<double>(),
        report["imbalance_after"].get<double>(), report["slots_fetched_per_layer"].get<double>());
}

}  // namespace

void AddEplbRepair(CLI::App& group) {
  CLI::App* command =
      group.add_subcommand("repair", "change a placement file by few slots for new loads");
  const auto flags = std::make_shared<RepairFlags>();
  command->add_option(Names("from"), flags->from, "EPLB YAML file in use")->required();
  command->add_option(Names("loads"), flags->loads, "FILE:TENSOR or a table")->required();
  command->add_option(Names("ep-size"), flags->ep_size, "ranks")->required();
  command->add_option(Names("output-path"), flags->output, "file to write; -: stdout")->required();
  command->add_option(Names("until"), flags->until, "mean imbalance at which to stop");
  command->add_option(Names("max-fetched-slots"), flags->max_fetched_slots, "per layer");
  command->add_option(Names("seed"), flags->seed, "of the search");
  command->add_flag(Names("json"), flags->json, "one JSON document");
  command->callback([flags] { Repair(*flags); });
}

}  // namespace wideload::apps
