// What ranks that share the attention of their requests (--tp 2, a thread each) make of prompts,
// against one rank of two threads: the same cores, the same products, other meetings. Experts are
// whole on one of the ranks, or divided by columns (--moe-tp 2). In turns, on threads of one
// process.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/cpu_info.h"
#include "base/thread_pool.h"
#include "checkpoint/checkpoint.h"
#include "kv/paged_cache.h"
#include "loaded_model.h"
#include "model/registry.h"
#include "model/sharded_model.h"
#include "runtime/engine.h"

namespace wideload::bench {
namespace {

constexpr int32_t kCores = 2;

struct Options {
  std::string model = WIDELOAD_MODELS_DIR "/wideload-14m";
  std::vector<int64_t> prompts = {512, 2048};
  int num_pairs = 9;
  std::vector<int32_t> expert_parts = {1, kCores};
};

// One rank has all cores.
parallel::Layout SharedLayout(int32_t expert_parts) {
  return {.tp = kCores, .moe_tp = expert_parts, .moe_ep = kCores / expert_parts};
}

runtime::EngineOptions OptionsFor(const LoadedModel& loaded, const parallel::Layout& layout,
                                  int64_t max_tokens) {
  runtime::EngineOptions options;
  options.kernels = loaded.kernels;
  options.layout = layout;
  options.threads_per_rank = kCores / layout.world();
  options.max_num_tokens = max_tokens;
  options.max_seq_len = max_tokens + 1;
  options.num_kv_blocks = kv::BlocksFor(max_tokens + 1);
  return options;
}

// A model of two ranks that share attention.
LoadedModel LoadShared(const std::string& folder, int32_t expert_parts) {
  LoadedModel loaded;
  const model::ModelReading reading = model::ReadModel(folder);
  loaded.config = reading.config;
  checkpoint::Checkpoint weights(folder);
  ThreadPool pool("load", NumAllowedCpus());
  loaded.model = model::LoadForThreads(
      reading.spec, weights,
      {.kernels = loaded.kernels, .pool = &pool, .expert_parts = model::AllParts(expert_parts)},
      kCores);
  return loaded;
}

// One prompt, and the first token of its answer.
double PromptSeconds(runtime::Engine& engine, const std::vector<int32_t>& prompt) {
  runtime::Request request;
  request.prompt = prompt;
  request.max_tokens = 1;
  engine.Submit(std::move(request));
  const auto start = std::chrono::steady_clock::now();
  for (const runtime::Event& event : engine.Step())
    if (event.finish == runtime::FinishReason::kError)
      Throw(ErrorKind::kRunFailed, "{}", event.error);
  if (engine.num_unfinished() != 0)
    Throw(ErrorKind::kRunFailed, "a prompt takes more than an iteration");
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2));
  return values[values.size() / 2];
}

std::vector<int32_t> RandomPrompt(int64_t tokens, int64_t vocab_size, std::mt19937& random) {
  std::vector<int32_t> prompt;
  for (int64_t i = 0; i < tokens; ++i)
    prompt.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(vocab_size)));
  return prompt;
}

void Compare(const LoadedModel& whole, const LoadedModel& shared, const parallel::Layout& layout,
             int64_t tokens, int num_pairs) {
  runtime::Engine one(*whole.model, OptionsFor(whole, {}, tokens));
  runtime::Engine two(*shared.model, OptionsFor(shared, layout, tokens));
  std::mt19937 random(15);
  std::vector<double> one_s, two_s, ratios;
  for (int pair = -1; pair < num_pairs; ++pair) {  // the first touches memory
    const std::vector<int32_t> prompt =
        RandomPrompt(tokens, whole.model->spec().vocab_size, random);
    double seconds[2];
    for (int i = 0; i < 2; ++i) {
      const bool is_two = (pair + i) % 2 == 0;  // a drift of the machine favours neither
      seconds[is_two ? 1 : 0] = PromptSeconds(is_two ? two : one, prompt);
    }
    if (pair < 0) continue;
    one_s.push_back(seconds[0]);
    two_s.push_back(seconds[1]);
    ratios.push_back(seconds[0] / seconds[1]);
  }
  const auto [least, most] = std::ranges::minmax_element(ratios);
  const auto count = static_cast<double>(tokens);
  fmt::print(
      "  prompt {}: 2 ranks x 1 thread {:.0f}, 1 rank x 2 threads {:.0f} tokens/s; ratio {:.3f} "
      "[{:.3f}-{:.3f}]   goal >= 0.9\n",
      tokens, count / Median(two_s), count / Median(one_s), Median(ratios), *least, *most);
}

void Measure(const Options& options) {
  const LoadedModel whole = Load(options.model);
  for (const int32_t parts : options.expert_parts) {
    const LoadedModel shared = LoadShared(options.model, parts);
    fmt::print("--tp {} --moe-tp {}\n", kCores, parts);
    for (const int64_t tokens : options.prompts)
      if (tokens < whole.config.max_position_embeddings)
        Compare(whole, shared, SharedLayout(parts), tokens, options.num_pairs);
  }
}

}  // namespace
}  // namespace wideload::bench

int main(int argc, char** argv) {
  wideload::bench::Options options;
  CLI::App app("prompts on ranks that share attention, against one rank of as many threads");
  app.add_option("--model", options.model, "a Hugging Face folder")->capture_default_str();
  app.add_option("--prompts", options.prompts, "tokens of each")->delimiter(',');
  app.add_option("--moe-tp", options.expert_parts, "ranks that divide an expert")->delimiter(',');
  app.add_option("--pairs", options.num_pairs)->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  try {
    wideload::bench::Measure(options);
    return 0;
  } catch (const wideload::Error& error) {
    fmt::print(stderr, "bench_sharing: {}\n", error.what());
    return wideload::ExitCode(error.kind());
  }
}
