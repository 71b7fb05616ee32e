// What handing a prompt's keys and values over costs: an engine computes prompts, another one, of
// the same layout or with its heads on two ranks, takes them over and goes on. On threads of one
// process; the time of a hand-over is that during which the ranks that go on wait for it.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/cpu_info.h"
#include "bench_timing.h"
#include "kv/block_classes.h"
#include "loaded_model.h"
#include "runtime/engine.h"

namespace wideload::bench {
namespace {

struct Options {
  std::string model = WIDELOAD_MODELS_DIR "/wideload-14m";
  int64_t prompt = 2048;
  int num_prompts = 9;
};

runtime::EngineOptions OptionsFor(const LoadedModel& loaded, int32_t tensor_ranks,
                                  int64_t num_tokens) {
  runtime::EngineOptions options;
  options.kernels = loaded.kernels;
  options.layout = {.tp = tensor_ranks, .moe_ep = tensor_ranks};
  options.threads_per_rank = std::max(1, NumAllowedCpus() / tensor_ranks);
  options.max_num_tokens = num_tokens;
  options.max_seq_len = num_tokens + 2;
  options.num_kv_blocks = 2 * kv::BlocksFor(num_tokens + 2);
  return options;
}

// Computes the prompt and its first token; returns the seconds and what the other engine gets.
double ComputePrompt(runtime::Engine& engine, runtime::Request request,
                     runtime::ComputedPrompt& prompt) {
  request.keeps_cache = true;
  request.max_tokens = 1;
  const runtime::RequestId id = engine.Submit(std::move(request));
  const auto start = std::chrono::steady_clock::now();
  while (engine.num_unfinished() > 0)
    for (const runtime::Event& event : engine.Step()) prompt.token = event.token;
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  auto kept = engine.Kept(id);
  if (!kept) Throw(ErrorKind::kRunFailed, "the prompt was not computed");
  prompt.lease = std::make_shared<const runtime::PromptLease>(
      std::move(*kept), [&engine, id] { engine.Release(id); });
  return seconds;
}

void Measure(const LoadedModel& context_model, const LoadedModel& generation_model,
             int32_t generation_ranks, const Options& options) {
  const int64_t num_tokens =
      std::min(options.prompt, context_model.config.max_position_embeddings - 2);
  runtime::Engine context(*context_model.model, OptionsFor(context_model, 1, num_tokens));
  runtime::Engine generation(*generation_model.model,
                             OptionsFor(generation_model, generation_ranks, num_tokens));
  std::mt19937 random(16);
  std::vector<double> prefills, hand_overs, shares;
  for (int i = -1; i < options.num_prompts; ++i) {  // the first touches memory
    runtime::Request request;
    request.prompt = RandomPrompt(context_model, num_tokens, random);
    request.max_tokens = 2;
    runtime::ComputedPrompt prompt;
    const double prefill = ComputePrompt(context, request, prompt);
    const int64_t before = generation.hand_over_figures().ns;
    generation.SubmitComputed(std::move(request), std::move(prompt));
    while (generation.num_unfinished() > 0) generation.Step();
    if (i < 0) continue;
    prefills.push_back(prefill);
    hand_overs.push_back(static_cast<double>(generation.hand_over_figures().ns - before) * 1e-9);
    shares.push_back(hand_overs.back() / prefill);
  }
  const auto [least, most] = std::ranges::minmax_element(shares);
  const runtime::HandOverFigures& figures = generation.hand_over_figures();
  fmt::print(
      "prompt of {} tokens from 1 rank to {}: prefill {:.1f} ms, hand-over of {:.2f} MiB {:.3f} "
      "ms: "
      "{:.3f} % of the prefill [{:.3f}-{:.3f}]   goal < 5\n",
      num_tokens, generation_ranks, 1e3 * Median(prefills),
      static_cast<double>(figures.num_bytes) / static_cast<double>(figures.num_prompts) / (1 << 20),
      1e3 * Median(hand_overs), 100 * Median(shares), 100 * *least, 100 * *most);
}

}  // namespace
}  // namespace wideload::bench

int main(int argc, char** argv) {
  using namespace wideload::bench;  // NOLINT(google-build-using-namespace): a program of one file
  Options options;
  CLI::App app("what handing a prompt over to another engine costs, beside computing it");
  app.add_option("--model", options.model, "a Hugging Face folder")->capture_default_str();
  app.add_option("--prompt", options.prompt, "tokens; at most what the context holds, less 2")
      ->capture_default_str();
  app.add_option("--prompts", options.num_prompts, "how many")->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  try {
    const LoadedModel whole = LoadForRanks(options.model, 1);
    Measure(whole, whole, 1, options);
    Measure(whole, LoadForRanks(options.model, 2), 2, options);
    return 0;
  } catch (const wideload::Error& error) {
    fmt::print(stderr, "bench_disaggregation: {}\n", error.what());
    return wideload::ExitCode(error.kind());
  }
}
