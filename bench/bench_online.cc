// Online balancing: nine kinds of text, one after the other, on eight ranks. The engine serves them
// with each policy that can run, and records what was routed; all policies are replayed on it.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "base/cpu_info.h"
#include "base/error.h"
#include "online_run.h"

namespace wideload {
namespace {

using bench::BalanceRow;
using bench::CostKind;
using bench::LoadedModel;
using bench::OnlineCost;
using bench::OnlineRun;
using bench::OnlineSetup;
using bench::Recording;
using rebalance::Mode;

struct Options {
  std::string model = WIDELOAD_MODELS_DIR "/wideload-14m";
  std::vector<int32_t> slots = {64, 72, 80, 96};
  std::vector<int32_t> measured_slots = {80};
  bool measures_all = false;    // else repair and contiguous slots alone
  int64_t max_num_tokens = 64;  // of a rank and iteration: prompts come in over several
  int64_t num_requests = 512;
  int64_t output_tokens = 64;
  size_t num_domains = 9;
  int32_t max_fetched_slots_per_iter = rebalance::OnlineOptions().max_fetched_slots_per_iter;
};

OnlineSetup MakeSetup(const Options& options, const char* name, int32_t num_slots,
                      Mode mode = Mode::kOff) {
  return {
      .name = name,
      .num_slots = num_slots,
      .max_num_tokens = options.max_num_tokens,
      .placements = {},
      .online = {.mode = mode, .max_fetched_slots_per_iter = options.max_fetched_slots_per_iter}};
}

// All but contiguous slots, repair first. Offline plans are made from what a run recorded.
std::vector<OnlineSetup> OtherSetups(const Options& options, int32_t num_slots,
                                     const Recording& recording) {
  std::vector<OnlineSetup> setups = {MakeSetup(options, "repair", num_slots, Mode::kRepair)};
  if (!options.measures_all) return setups;
  const auto add = [&](OnlineSetup setup, const char* name, eplb::SplitMode split) {
    setup.name = name;
    setup.split = split;
    setups.push_back(std::move(setup));
  };
  OnlineSetup offline = MakeSetup(options, "", num_slots);
  offline.placements = bench::OfflinePlan(recording, num_slots);
  const OnlineSetup online = MakeSetup(options, "", num_slots, Mode::kTensorRtLlm);
  add(offline, "tensorrt_llm offline, even", eplb::SplitMode::kRoundRobin);
  add(offline, "tensorrt_llm offline, optimal", eplb::SplitMode::kOptimal);
  add(online, "tensorrt_llm online, even", eplb::SplitMode::kRoundRobin);
  add(online, "tensorrt_llm online, optimal", eplb::SplitMode::kOptimal);
  return setups;
}

void PrintCost(const char* name, const OnlineCost& cost) {
  if (cost.num_iterations == 0) return;
  const auto percent = [&](double seconds) { return 100 * seconds / cost.total_s; };
  std::printf(
      "  %s: %lld iterations of %.0f tokens, %.2f s CPU; counting and splitting %.2f %%, balancer "
      "%.2f %%, moves %.2f %%: %.2f %% on the iteration's path; planner's thread %.2f %%\n",
      name, static_cast<long long>(cost.num_iterations),
      static_cast<double>(cost.num_tokens) / static_cast<double>(cost.num_iterations), cost.total_s,
      percent(cost.counting_s), percent(cost.balancer_s), percent(cost.moving_s),
      100 * cost.PathShare(), percent(cost.planning_s));
}

// The longest computation of a rank, and the mean of all, summed over layers.
void PrintGain(const char* name, const OnlineCost& contiguous, const OnlineCost& repair) {
  if (repair.num_iterations == 0) return;
  std::printf(
      "  %s: critical path of experts %.2f s (mean of ranks %.2f s) contiguous, %.2f s (%.2f s) "
      "repair: ratio %.3f\n",
      name, contiguous.critical_s, contiguous.computing_s, repair.critical_s, repair.computing_s,
      contiguous.critical_s / repair.critical_s);
}

void PrintParts(const OnlineRun& contiguous, const OnlineRun& repair) {
  constexpr std::pair<CostKind, const char*> kKinds[] = {{CostKind::kAll, "all"},
                                                         {CostKind::kLarge, "1024 tokens and more"},
                                                         {CostKind::kDecode, "decode"}};
  std::printf(" contiguous\n");
  for (const auto& [kind, name] : kKinds) PrintCost(name, contiguous.cost(kind));
  std::printf(" repair, %lld plans late\n", static_cast<long long>(repair.figures.num_late));
  for (const auto& [kind, name] : kKinds) PrintCost(name, repair.cost(kind));
  for (const auto& [kind, name] : kKinds) PrintGain(name, contiguous.cost(kind), repair.cost(kind));
}

// Serves with every policy and prints its line; returns the run with repair.
OnlineRun Measure(const Options& options, const LoadedModel& loaded, const OnlineLoad& load,
                  int32_t num_slots, BalanceRow& repair_row) {
  std::printf("%d slots, measured\n", num_slots);
  const auto serve = [&](const OnlineSetup& setup, OnlineRun& run) {
    run = bench::RunOnline(loaded, load, setup);
    const BalanceRow row = MakeRow(setup.name, run.iterations, run.recording);
    PrintRow(row);
    std::fflush(stdout);
    return row;
  };
  OnlineRun contiguous, repair;
  serve(MakeSetup(options, "contiguous", num_slots), contiguous);
  for (const OnlineSetup& setup : OtherSetups(options, num_slots, contiguous.recording)) {
    OnlineRun run;
    const BalanceRow row = serve(setup, run);
    if (run.recording.counts != contiguous.recording.counts)
      Throw(ErrorKind::kRunFailed, "{}: other tokens than with contiguous slots", setup.name);
    if (setup.online.mode != Mode::kRepair) continue;
    repair = std::move(run);
    repair_row = row;
  }
  std::printf("  iterations, tokens and routing of all runs: the same\n");
  PrintParts(contiguous, repair);
  return repair;
}

void AddOptions(CLI::App& app, Options& options) {
  app.add_option("--slots", options.slots, "to replay, over 8 ranks")->capture_default_str();
  app.add_option("--measured-slots", options.measured_slots, "of the engine's runs")
      ->capture_default_str();
  app.add_flag("--measure-all", options.measures_all,
               "the engine also serves with TensorRT-LLM's policies");
  app.add_option("--max-num-tokens", options.max_num_tokens, "of a rank and iteration")
      ->check(CLI::Range(32, 4096))
      ->capture_default_str();
  app.add_option("--requests", options.num_requests, "of each domain")->capture_default_str();
  app.add_option("--output-tokens", options.output_tokens, "of each request")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--domains", options.num_domains, "served")
      ->check(CLI::Range(1, 9))
      ->capture_default_str();
  app.add_option("--max-fetched-slots-per-iter", options.max_fetched_slots_per_iter, "of repair")
      ->capture_default_str();
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("online balancing: imbalance, fetches and cost, domain after domain");
  AddOptions(app, options);
  CLI11_PARSE(app, argc, argv);
  const LoadedModel loaded = bench::Load(options.model);
  OnlineLoad load = ReadOnlineLoad(options.model);
  load.domains.resize(options.num_domains);
  load.num_requests = options.num_requests;
  load.max_tokens = options.output_tokens;
  std::printf("machine: %s, %d cores, kernels %s; %zu domains, %lld requests each\n",
              ThisCpu().brand.c_str(), NumAllowedCpus(),
              std::string(KernelSetName(loaded.kernels)).c_str(), load.domains.size(),
              static_cast<long long>(load.num_requests));
  bench::PrintHeading();
  OnlineRun last;
  std::vector<BalanceRow> measured;
  for (const int32_t num_slots : options.measured_slots)
    last = Measure(options, loaded, load, num_slots, measured.emplace_back());
  std::printf("%zu iterations\n", last.recording.num_iterations());
  for (const int32_t num_slots : options.slots) {
    const BalanceRow simulated =
        bench::Simulate(last.recording, num_slots, options.max_fetched_slots_per_iter);
    for (size_t i = 0; i < measured.size(); ++i)
      if (num_slots == options.measured_slots[i])
        std::printf("  repair, measured / replayed: %.3f\n", measured[i].whole / simulated.whole);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace wideload

int main(int argc, char** argv) {
  try {
    return wideload::Main(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_online: error: %s\n", e.what());
    return 1;
  }
}
