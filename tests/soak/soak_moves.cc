// Random layouts whose placements are drawn anew at every iteration, against one rank whose weights
// stay, bit for bit.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <string>

#include "base/error.h"
#include "support/random_layout.h"
#include "support/random_model.h"
#include "support/random_moves.h"
#include "support/test_data.h"

namespace wideload {
namespace {

struct Soak {
  int64_t iterations = 10'000;
  uint64_t seed = 1;
  int64_t done = 0;
  uint64_t num_layouts = 0;

  // False when a bit differs or a slot does not hold its expert.
  bool Try(const std::string& folder, compute::KernelSet kernels);
};

bool Soak::Try(const std::string& folder, compute::KernelSet kernels) {
  constexpr size_t kNumRequests = 32;
  constexpr int kLayouts = 4;
  const testing_support::TestModel model = testing_support::LoadTestModel(folder, kernels);
  if (model.config.num_experts == 0) return true;
  const auto requests = testing_support::DrawRequests(model, kNumRequests, seed + num_layouts);
  const auto expected = testing_support::RunRequests(
      *model.model, testing_support::TestOptions(model.config, kernels), requests);
  for (int i = 0; i < kLayouts && done < iterations; ++i, ++num_layouts) {
    auto layout = testing_support::DrawLayout(model, kernels, kNumRequests, seed + num_layouts);
    runtime::EngineOptions& options = layout.options;
    options.slot_storage = i % 2 == 0 ? moe::SlotStorage::kCopy : moe::SlotStorage::kView;
    options.verify_slots = i >= 2;
    options.num_spare_slots = static_cast<int32_t>(num_layouts % 7);
    std::string difference;
    try {
      runtime::Engine engine(*model.model, options);
      difference = CompareMoving(engine, model.model->spec().moe, requests, expected, done);
    } catch (const Error& error) {
      difference = error.what();
    }
    if (difference.empty()) continue;
    std::printf("%s, %s, slots %s: %s\n", folder.c_str(), layout.Describe().c_str(),
                i % 2 == 0 ? "copied" : "viewed", difference.c_str());
    return false;
  }
  std::fprintf(stderr, "%lld of %lld iterations\n", static_cast<long long>(done),
               static_cast<long long>(iterations));
  return true;
}

bool Run(Soak& soak) {
  std::vector<std::string> folders = testing_support::TinyModels();
  for (const std::string& folder : testing_support::WriteRandomFamilies(20))
    folders.push_back(folder);
  while (soak.done < soak.iterations)
    for (const compute::KernelSet kernels : compute::SupportedKernelSets())
      for (const std::string& folder : folders)
        if (soak.done < soak.iterations && !soak.Try(folder, kernels)) return false;
  std::printf(
      "%lld iterations of %llu layouts, every placement drawn anew at each: no bit differs\n",
      static_cast<long long>(soak.done), static_cast<unsigned long long>(soak.num_layouts));
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
