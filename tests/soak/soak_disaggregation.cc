// ./dev soak disaggregation: prompts computed by an engine of every layout of up to so many ranks,
// continued by an engine of every other one, each pair compared bit for bit with one engine.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "ranks/engine_pair.h"
#include "support/layout_cases.h"

namespace wideload {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace): all of this is with them

std::string Describe(const Side& side) {
  std::string text = fmt::format("tp {} dp {} pp {} cp {}", side.tp, side.dp, side.pp, side.cp);
  if (!side.stage_layers.empty()) text += fmt::format(" ({})", fmt::join(side.stage_layers, "+"));
  return text;
}

// Of every layout of up to so many ranks; stages also unequally large.
std::vector<Side> SidesUpTo(int32_t num_ranks, int64_t num_layers) {
  std::vector<Side> sides;
  for (int32_t tp = 1; tp <= 2; tp *= 2)
    for (int32_t dp = 1; tp * dp <= num_ranks; dp *= 2)
      for (int32_t pp = 1; tp * dp * pp <= num_ranks && pp <= num_layers; ++pp)
        for (int32_t cp = 1; tp * dp * pp * cp <= num_ranks; cp *= 2) {
          sides.push_back({.tp = tp, .dp = dp, .pp = pp, .cp = cp});
          if (pp == 1) continue;
          Side unequal = sides.back();
          unequal.stage_layers.assign(static_cast<size_t>(pp), 1);
          unequal.stage_layers.back() += static_cast<int32_t>(num_layers) - pp;
          sides.push_back(unequal);
        }
  return sides;
}

// Returns how many pairs differ.
int64_t TryModel(const std::string& folder, int32_t num_ranks, int64_t& num_pairs) {
  const TestModel one = LoadTestModel(folder, compute::AutoKernelSet());
  const std::vector<runtime::Request> requests = LongRequests(one, 7, 1);
  runtime::Engine engine(*one.model, OptionsOf(one, 1));
  runtime::EngineLoop alone(engine, nullptr);
  const Answers expected = RunAll(alone, requests);
  std::map<int32_t, TestModel> models;  // by tp
  for (const int32_t tp : {1, 2})
    models.emplace(tp, LoadTestModel(folder, compute::AutoKernelSet(), tp));
  int64_t num_different = 0;
  const std::vector<Side> sides = SidesUpTo(num_ranks, one.model->spec().num_layers());
  for (const Side& context : sides) {
    for (const Side& generation : sides) {
      EngineOptions context_options = OptionsOf(models.at(context.tp), context);
      context_options.max_num_tokens = 60;
      EnginePair pair(*models.at(context.tp).model, context_options,
                      *models.at(generation.tp).model,
                      OptionsOf(models.at(generation.tp), generation));
      const bool is_same = RunAll(pair.loop, requests).all() == expected.all();
      ++num_pairs;
      if (is_same) continue;
      ++num_different;
      std::printf("%s: %s to %s: other bits\n", folder.c_str(), Describe(context).c_str(),
                  Describe(generation).c_str());
    }
    std::fprintf(stderr, "%s: from %s to %zu layouts\n", folder.c_str(), Describe(context).c_str(),
                 sides.size());
  }
  return num_different;
}

}  // namespace
}  // namespace wideload

int main(int argc, char** argv) {
  CLI::App app("prefill and decode apart, pairs of layouts against one engine, bit for bit");
  int32_t num_ranks = 4;
  app.add_option("--ranks", num_ranks, "of either side at most")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  int64_t num_different = 0;
  int64_t num_pairs = 0;
  for (const std::string& folder : wideload::testing_support::LayoutModels())
    num_different += wideload::TryModel(folder, num_ranks, num_pairs);
  std::printf("%lld of %lld pairs of layouts differ from one engine\n",
              static_cast<long long>(num_different), static_cast<long long>(num_pairs));
  return num_different == 0 ? 0 : 1;
}
