// What ranks that share their requests make of prompts and of decoding, two of a thread each
// against one rank of two threads: the same cores, the same products, other meetings. With --tp 2
// they share the heads of attention, experts whole on one of the ranks or divided by columns
// (--moe-tp 2); with
// --cp 2 the context. In turns, on threads of one process.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "bench_timing.h"
#include "kv/paged_cache.h"
#include "loaded_model.h"
#include "runtime/engine.h"

namespace wideload::bench {
namespace {

constexpr int32_t kCores = 2;
constexpr int kDecodeSteps = 8;  // of a pair

struct Options {
  std::string model = WIDELOAD_MODELS_DIR "/wideload-14m";
  std::vector<int64_t> prompts = {512, 2048};
  std::vector<int64_t> contexts = {2048, 8192};
  int num_pairs = 9;
  std::vector<int32_t> expert_parts = {1, kCores};
};

// Requests of so many tokens, whose prompts take an iteration, and of one more for each decode
// step.
runtime::EngineOptions OptionsFor(const LoadedModel& loaded, const parallel::Layout& layout,
                                  int64_t prompt_tokens, int64_t decode_steps) {
  runtime::EngineOptions options;
  options.kernels = loaded.kernels;
  options.layout = layout;
  options.threads_per_rank = kCores / layout.world();  // one rank has all cores
  options.max_num_tokens = prompt_tokens;
  options.max_seq_len = prompt_tokens + decode_steps + 1;
  options.num_kv_blocks = kv::BlocksFor(options.max_seq_len, layout.cp);
  return options;
}

double StepSeconds(runtime::Engine& engine) {
  const auto start = std::chrono::steady_clock::now();
  for (const runtime::Event& event : engine.Step())
    if (event.finish == runtime::FinishReason::kError)
      Throw(ErrorKind::kRunFailed, "{}", event.error);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void Submit(runtime::Engine& engine, const std::vector<int32_t>& prompt, int64_t max_tokens) {
  runtime::Request request;
  request.prompt = prompt;
  request.max_tokens = max_tokens;
  engine.Submit(std::move(request));
}

// One rank and two with the same model, for prompts of `tokens` and requests that decode after
// them.
class Contest {
 public:
  Contest(const LoadedModel& whole, const LoadedModel& shared, const parallel::Layout& layout,
          int64_t tokens, int num_pairs)
      : whole_(whole),
        tokens_(tokens),
        num_pairs_(num_pairs),
        one_(*whole.model, OptionsFor(whole, {}, tokens, MostSteps())),
        two_(*shared.model, OptionsFor(shared, layout, tokens, MostSteps())) {}

  // A prompt, and the first token of its answer.
  void Prefill(const char* goal) {
    std::mt19937 random(15);
    std::vector<int32_t> prompt;
    Compare(fmt::format("prompt {}", tokens_), tokens_, goal, [&](auto& engine) {
      if (&engine == first_) prompt = RandomPrompt(whole_, tokens_, random);
      Submit(engine, prompt, 1);
      const double seconds = StepSeconds(engine);
      WIDELOAD_CHECK(engine.num_unfinished() == 0, "a prompt takes more than an iteration");
      return seconds;
    });
  }
  // The tokens after a prompt.
  void Decode() {
    std::mt19937 random(15);
    const std::vector<int32_t> prompt = RandomPrompt(whole_, tokens_, random);
    for (runtime::Engine* engine : {&one_, &two_}) {
      Submit(*engine, prompt, MostSteps() + 1);
      StepSeconds(*engine);
    }
    Compare(fmt::format("decode after {}", tokens_), kDecodeSteps, "", [](auto& engine) {
      double seconds = 0;
      for (int step = 0; step < kDecodeSteps; ++step) seconds += StepSeconds(engine);
      return seconds;
    });
  }

 private:
  int64_t MostSteps() const { return int64_t{num_pairs_ + 1} * kDecodeSteps; }

  // The same work by both in turns, in an order in which a drift of the machine favours neither.
  template <class Work>
  void Compare(const std::string& what, int64_t tokens, const char* goal, const Work& seconds_of) {
    std::vector<double> one_s, two_s, ratios;
    for (int pair = -1; pair < num_pairs_; ++pair) {  // the first touches memory
      const bool is_two_first = pair % 2 == 0;
      first_ = is_two_first ? &two_ : &one_;
      const double first = seconds_of(*first_);
      const double second = seconds_of(is_two_first ? one_ : two_);
      if (pair < 0) continue;
      one_s.push_back(is_two_first ? second : first);
      two_s.push_back(is_two_first ? first : second);
      ratios.push_back(one_s.back() / two_s.back());
    }
    const auto [least, most] = std::ranges::minmax_element(ratios);
    const auto count = static_cast<double>(tokens);
    fmt::print(
        "  {}: 2 ranks x 1 thread {:.1f}, 1 rank x 2 threads {:.1f} tokens/s; ratio {:.3f} "
        "[{:.3f}-{:.3f}]{}\n",
        what, count / Median(two_s), count / Median(one_s), Median(ratios), *least, *most, goal);
    std::fflush(stdout);
  }

  const LoadedModel& whole_;
  int64_t tokens_;
  int num_pairs_;
  runtime::Engine one_;
  runtime::Engine two_;
  runtime::Engine* first_ = nullptr;  // of the pair
};

void Measure(const Options& options) {
  const LoadedModel whole = LoadForRanks(options.model, 1);
  const auto fits = [&](int64_t tokens) {
    return tokens + int64_t{options.num_pairs + 1} * kDecodeSteps + 1 <
           whole.config.max_position_embeddings;
  };
  for (const int32_t parts : options.expert_parts) {
    const LoadedModel shared = LoadForRanks(options.model, kCores, parts);
    fmt::print("--tp {} --moe-tp {}\n", kCores, parts);
    const parallel::Layout layout{.tp = kCores, .moe_tp = parts, .moe_ep = kCores / parts};
    for (const int64_t tokens : options.prompts)
      if (fits(tokens))
        Contest(whole, shared, layout, tokens, options.num_pairs).Prefill("   goal >= 0.9");
  }
  fmt::print("--cp {}\n", kCores);
  for (const int64_t tokens : options.contexts) {
    if (!fits(tokens)) continue;
    Contest contest(whole, whole, {.cp = kCores, .moe_ep = kCores}, tokens, options.num_pairs);
    contest.Prefill("");
    contest.Decode();
  }
}

}  // namespace
}  // namespace wideload::bench

int main(int argc, char** argv) {
  wideload::bench::Options options;
  CLI::App app("ranks that share their requests, against one rank of as many threads");
  app.add_option("--model", options.model, "a Hugging Face folder")->capture_default_str();
  app.add_option("--prompts", options.prompts, "tokens of each, with --tp 2")->delimiter(',');
  app.add_option("--moe-tp", options.expert_parts, "ranks that divide an expert")->delimiter(',');
  app.add_option("--contexts", options.contexts, "tokens of each, with --cp 2")->delimiter(',');
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
