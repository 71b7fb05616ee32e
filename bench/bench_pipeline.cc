// How much of their time stages of a pipeline have nothing to do in steady decode: four ranks, each
// with a quarter of the layers, and 1, 2 and 4 micro-batches in flight. Time is what each stage's
// thread computed in a step, by its own clock of CPU time, as if each stage had a core to itself: a
// step lasts as long as its slowest stage, and the bubble is the rest of the others.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "base/error.h"
#include "kv/paged_cache.h"
#include "loaded_model.h"
#include "runtime/engine.h"
#include "support/random_model.h"

namespace wideload {
namespace {

constexpr int32_t kStages = 4;
constexpr int64_t kPrompt = 32;
constexpr uint64_t kSeed = 15;

struct Setup {
  std::string model;  // empty: 8 layers with random weights
  int64_t num_requests = 32;
  int64_t num_steps = 200;
  std::vector<int32_t> partition;  // layers of each stage; empty: evenly
};

struct Result {
  double busy_s[kStages] = {};
  double steps_s = 0;  // each as long as its slowest stage
  int64_t num_tokens = 0;

  double Bubble() const {
    double busy = 0;
    for (const double stage : busy_s) busy += stage;
    return 1 - busy / (kStages * steps_s);
  }
};

runtime::EngineOptions Options(const Setup& setup, const bench::LoadedModel& loaded,
                               int32_t num_micro_batches) {
  runtime::EngineOptions options;
  options.kernels = loaded.kernels;
  options.layout.pp = kStages;
  options.stage_layers = setup.partition;
  options.num_micro_batches = num_micro_batches;
  options.num_slots = static_cast<int32_t>(loaded.config.num_experts);
  options.max_batch_size = (setup.num_requests + num_micro_batches - 1) / num_micro_batches;
  options.max_seq_len = loaded.config.max_position_embeddings;
  options.num_kv_blocks = options.max_batch_size * kv::BlocksFor(options.max_seq_len);
  options.is_metered = true;
  options.deadline = std::chrono::seconds(60);  // also beside other work
  return options;
}

Result Measure(const Setup& setup, const bench::LoadedModel& loaded, int32_t num_micro_batches) {
  runtime::Engine engine(*loaded.model, Options(setup, loaded, num_micro_batches));
  for (int64_t i = 0; i < setup.num_requests; ++i) {
    runtime::Request request;
    request.prompt.assign(kPrompt, static_cast<int32_t>(5 + i));
    request.max_tokens = loaded.config.max_position_embeddings - kPrompt;
    engine.Submit(std::move(request));
  }
  for (int64_t i = 0; i < int64_t{4} * kStages; ++i) engine.Step();  // prompts
  Result result;
  for (int64_t i = 0; i < setup.num_steps; ++i) {
    result.num_tokens += static_cast<int64_t>(engine.Step().size());
    double longest = 0;
    for (int32_t stage = 0; stage < kStages; ++stage) {
      const double seconds = static_cast<double>(engine.Times(stage).computing_ns) * 1e-9;
      result.busy_s[stage] += seconds;
      longest = std::max(longest, seconds);
    }
    result.steps_s += longest;
  }
  WIDELOAD_CHECK(engine.num_unfinished() == setup.num_requests, "{} of {} requests still decode",
                 engine.num_unfinished(), setup.num_requests);
  return result;
}

void Run(const Setup& setup) {
  std::string folder = setup.model;
  if (folder.empty()) {
    folder = testing_support::TemporaryFolder("bench_pipeline");
    testing_support::WriteLayoutModel(folder, kSeed);
  }
  const bench::LoadedModel loaded = bench::Load(folder);
  std::printf(
      "%s, %d stages, %lld requests, %lld steps of decode; CPU time of each stage's thread\n",
      loaded.config.architecture.c_str(), kStages, static_cast<long long>(setup.num_requests),
      static_cast<long long>(setup.num_steps));
  for (const int32_t num_micro_batches : {1, 2, 4}) {
    const Result result = Measure(setup, loaded, num_micro_batches);
    std::printf("%d micro-batches: bubble %.1f %% (without uneven stages %.0f %%), busy",
                num_micro_batches, 100 * result.Bubble(),
                100 * (1 - 1.0 * num_micro_batches / kStages));
    for (const double seconds : result.busy_s) std::printf(" %.3f", seconds);
    std::printf(" s of %.3f s; %.0f tokens/s with a core per stage\n", result.steps_s,
                static_cast<double>(result.num_tokens) / result.steps_s);
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace wideload

int main(int argc, char** argv) {
  wideload::Setup setup;
  CLI::App app("how much of their time stages of a pipeline have nothing to do");
  app.add_option("--model", setup.model,
                 "a Hugging Face folder (default: 8 layers of random weights)");
  app.add_option("--requests", setup.num_requests, "that decode at once")->capture_default_str();
  app.add_option("--steps", setup.num_steps, "that are measured")->capture_default_str();
  app.add_option("--partition", setup.partition, "layers of each stage (default: evenly)")
      ->delimiter(',');
  CLI11_PARSE(app, argc, argv);
  wideload::Run(setup);
  return 0;
}
