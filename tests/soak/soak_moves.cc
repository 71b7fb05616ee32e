// Random layouts whose placements are drawn anew at every iteration, against one rank whose weights
// stay, bit for bit.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <string>

#include "base/error.h"
#include "support/engine_processes.h"
#include "support/random_layout.h"
#include "support/random_model.h"
#include "support/random_moves.h"
#include "support/test_data.h"

namespace wideload {
namespace {

constexpr size_t kNumRequests = 32;

// Of each model, threads of one process and processes; copied slots and viewed ones, of which some
// are compared with their experts after each change. Chunks, splits and batches are drawn.
struct Layout {
  bool is_processes = false;
  int32_t num_ranks = 8;
  moe::SlotStorage storage = moe::SlotStorage::kView;
  bool verify_slots = false;
};
constexpr Layout kLayouts[] = {
    {.num_ranks = 8, .storage = moe::SlotStorage::kCopy},
    {.num_ranks = 16, .storage = moe::SlotStorage::kView, .verify_slots = true},
    {.is_processes = true, .num_ranks = 4, .storage = moe::SlotStorage::kCopy},
    {.num_ranks = 8, .storage = moe::SlotStorage::kView},
    {.num_ranks = 16, .storage = moe::SlotStorage::kCopy, .verify_slots = true},
    {.is_processes = true, .num_ranks = 4, .storage = moe::SlotStorage::kView},
    {.is_processes = true,
     .num_ranks = 4,
     .storage = moe::SlotStorage::kCopy,
     .verify_slots = true},
};

struct Requests {
  const testing_support::TestModel& model;
  std::vector<runtime::Request> requests;
  std::vector<testing_support::Outcome> expected;  // of one rank, without changes
};

struct Soak {
  int64_t iterations = 10'000;
  uint64_t seed = 1;
  int64_t on_threads = 0, on_processes = 0;  // iterations that ran
  uint64_t num_layouts = 0;

  bool IsDone() const { return on_threads + on_processes >= iterations; }
  // False when a bit differs or a slot does not hold its expert.
  bool Try(const std::string& folder, compute::KernelSet kernels);
  // What differs, or "".
  std::string TryLayout(const Requests& load, const Layout& layout,
                        const runtime::EngineOptions& options);
};

std::string Soak::TryLayout(const Requests& load, const Layout& layout,
                            const runtime::EngineOptions& options) {
  const moe::MoeShape& moe = load.model.model->spec().moe;
  if (!layout.is_processes) {
    runtime::Engine engine(*load.model.model, options);
    return CompareMoving(engine, moe, load.requests, load.expected, on_threads);
  }
  const SharedCounter ran;
  const auto lead = [&](runtime::Engine& engine) {
    int64_t count = 0;
    const std::string difference = CompareMoving(engine, moe, load.requests, load.expected, count);
    *ran = static_cast<uint32_t>(count);
    if (!difference.empty()) Throw(ErrorKind::kCorrupt, "{}", difference);
  };
  const ProcessOutcome outcome =
      RunEngineProcesses({.options = options,
                          .model_of = [&](int) -> const model::Model& { return *load.model.model; },
                          .lead = lead});
  on_processes += ran->load();
  if (!outcome.killed_ranks.empty())
    return fmt::format("rank {} was ended by a signal", outcome.killed_ranks[0]);
  return outcome.ranks.error;
}

bool Soak::Try(const std::string& folder, compute::KernelSet kernels) {
  const testing_support::TestModel model = testing_support::LoadTestModel(folder, kernels);
  if (model.config.num_experts == 0) return true;
  Requests load{.model = model,
                .requests = testing_support::DrawRequests(model, kNumRequests, seed + num_layouts),
                .expected = {}};
  load.expected = testing_support::RunRequests(
      *model.model, testing_support::TestOptions(model.config, kernels), load.requests);
  for (const Layout& layout : kLayouts) {
    if (IsDone()) break;
    testing_support::RandomLayout drawn = testing_support::DrawLayout(
        model, kernels, kNumRequests, seed + num_layouts, layout.num_ranks);
    runtime::EngineOptions& options = drawn.options;
    options.slot_storage = layout.storage;
    options.verify_slots = layout.verify_slots;
    options.num_spare_slots = static_cast<int32_t>(num_layouts % 7);
    options.deadline = std::chrono::minutes(2);  // a soak runs beside other work
    ++num_layouts;
    std::string difference;
    try {
      difference = TryLayout(load, layout, options);
    } catch (const Error& error) {
      difference = error.what();
    }
    if (difference.empty()) continue;
    std::printf("%s, %s%s, slots %s: %s\n", folder.c_str(),
                layout.is_processes ? "processes, " : "", drawn.Describe().c_str(),
                layout.storage == moe::SlotStorage::kCopy ? "copied" : "viewed",
                difference.c_str());
    return false;
  }
  std::fprintf(stderr, "%s: %lld of %lld iterations, %lld of them on processes\n", folder.c_str(),
               static_cast<long long>(on_threads + on_processes),
               static_cast<long long>(iterations), static_cast<long long>(on_processes));
  return true;
}

bool Run(Soak& soak) {
  std::vector<std::string> folders = testing_support::TinyModels();
  for (const std::string& folder : testing_support::WriteRandomFamilies(20))
    folders.push_back(folder);
  const auto supported = compute::SupportedKernelSets();
  const std::vector<compute::KernelSet> sets(supported.rbegin(), supported.rend());  // fast first
  while (!soak.IsDone())
    for (const compute::KernelSet kernels : sets)
      for (const std::string& folder : folders)
        if (!soak.IsDone() && !soak.Try(folder, kernels)) return false;
  std::printf(
      "%lld iterations on threads and %lld on processes, of %llu layouts, every placement drawn "
      "anew at each: no bit differs\n",
      static_cast<long long>(soak.on_threads), static_cast<long long>(soak.on_processes),
      static_cast<unsigned long long>(soak.num_layouts));
  return true;
}

}  // namespace
}  // namespace wideload

int main(int argc, char** argv) {
  wideload::Soak soak;
  CLI::App app("placements drawn anew at every iteration against one rank, bit for bit");
  app.add_option("--iterations", soak.iterations, "iterations to run")->capture_default_str();
  app.add_option("--seed", soak.seed, "of the first layout")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  return wideload::Run(soak) ? 0 : 1;
}
