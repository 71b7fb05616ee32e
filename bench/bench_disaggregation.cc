// What handing a prompt's keys and values over costs: an engine computes prompts, another one, of
// the same layout or with its heads on two ranks, takes them over and goes on. On threads of one
// process, and from a process of its own, whose memory is mapped or which is asked over TCP on the
// loopback; the time of a hand-over is that during which the ranks
// that go on wait for it.
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/cpu_info.h"
#include "bench_timing.h"
#include "comm/local/local_communicator.h"
#include "exchange/local_fabric.h"
#include "kv/block_classes.h"
#include "loaded_model.h"
#include "runtime/engine.h"
#include "runtime/rank.h"
#include "runtime/servers/block_service.h"
#include "runtime/servers/context_server.h"
#include "runtime/servers/remote_contexts.h"

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

struct Times {
  std::vector<double> prefills, hand_overs;

  void Print(std::string_view what, const runtime::HandOverFigures& figures) const {
    std::vector<double> shares;
    for (size_t i = 0; i < prefills.size(); ++i) shares.push_back(hand_overs[i] / prefills[i]);
    const auto [least, most] = std::ranges::minmax_element(shares);
    fmt::print(
        "{}: prefill {:.1f} ms, hand-over of {:.2f} MiB {:.3f} ms: {:.3f} % of the prefill "
        "[{:.3f}-{:.3f}]   goal < 5\n",
        what, 1e3 * Median(prefills),
        static_cast<double>(figures.num_bytes) / static_cast<double>(figures.num_prompts) /
            (1 << 20),
        1e3 * Median(hand_overs), 100 * Median(shares), 100 * *least, 100 * *most);
  }
};

runtime::Request RandomRequest(const LoadedModel& loaded, int64_t num_tokens,
                               std::mt19937& random) {
  runtime::Request request;
  request.prompt = RandomPrompt(loaded, num_tokens, random);
  request.max_tokens = 2;
  return request;
}

int64_t TokensOfPrompt(const LoadedModel& loaded, const Options& options) {
  return std::min(options.prompt, loaded.config.max_position_embeddings - 2);
}

// A context server of one rank in a forked process, at the other end of `socket`. Its first message
// is the card of its BlockService.
pid_t ForkContext(const LoadedModel& loaded, const runtime::EngineOptions& options,
                  Descriptor& here) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    Throw(ErrorKind::kIo, "no pair of sockets");
  std::fflush(nullptr);
  const pid_t child = ::fork();
  here = Descriptor(child == 0 ? -1 : ends[0]);
  Descriptor there(ends[1]);
  if (child != 0) return child;
  ::close(ends[0]);
  int code = 0;
  try {
    runtime::MessageSocket socket(std::move(there));
    const runtime::BlockService service(
        {.spec = &loaded.model->spec(),
         .part = runtime::CachePartOf(options, loaded.model->spec().num_layers(), 0),
         .shape = runtime::CacheShapeOf(loaded.model->spec(), options, 0),
         .memory = options.cache_memory[0]},
        true);
    socket.Send(std::as_bytes(std::span(&service.card(), 1)));
    runtime::Engine engine(*loaded.model, options);
    runtime::ContextServer(engine, socket).Serve();
  } catch (const std::exception& failure) {
    fmt::print(stderr, "bench_disaggregation: the context server: {}\n", failure.what());
    code = 1;
  }
  ::_exit(code);
}

void MeasureProcesses(const LoadedModel& loaded, bool is_mapped, const Options& options) {
  const int64_t num_tokens = TokensOfPrompt(loaded, options);
  runtime::EngineOptions context_options = OptionsFor(loaded, 1, num_tokens);
  const std::string job = fmt::format("bench-{}-{}", ::getpid(), is_mapped);
  const SharedMemory cache =
      runtime::MakeCacheSegment(loaded.model->spec(), context_options, job, 0);
  context_options.cache_memory = {cache.bytes()};
  Descriptor here;
  const pid_t child = ForkContext(loaded, context_options, here);
  const auto socket = std::make_shared<runtime::MessageSocket>(std::move(here));
  runtime::CachePlace place{.is_mapped = is_mapped};
  const auto card = socket->Receive();
  if (!card || card->size() != sizeof(place.service))
    Throw(ErrorKind::kRunFailed, "the context server has not said where it is");
  std::memcpy(&place.service, card->data(), sizeof(place.service));
  runtime::ContextCaches caches;
  caches.Attach(loaded.model->spec(), runtime::CacheCard::Of(context_options, job),
                std::span(&place, 1));
  const runtime::EngineOptions generation_options = OptionsFor(loaded, 1, num_tokens);
  comm::LocalGroup ranks(1, {.total_threads = generation_options.threads_per_rank});
  exchange::LocalFabrics orders(1, runtime::MessageChannel::SegmentBytes(1));
  exchange::LocalFabrics rows(
      1, std::max<int64_t>(1, runtime::ExchangeSegmentBytes(*loaded.model, generation_options)));
  const runtime::RankLinks links{.group = &ranks.rank(0),
                                 .exchange = &rows.rank(0),
                                 .orders = &orders.rank(0),
                                 .contexts = &caches};
  runtime::Engine generation(*loaded.model, generation_options, links);
  const auto vocab_size = static_cast<uint32_t>(loaded.model->spec().vocab_size);
  Times times;
  {
    runtime::RemoteContexts prompts(
        {.sockets = {socket}, .caches = &caches, .vocab_size = vocab_size});
    runtime::EngineLoop loop(generation, nullptr);
    loop.UseContext(prompts, std::chrono::hours(1));
    std::mt19937 random(16);
    for (int i = -1; i < options.num_prompts; ++i) {  // the first touches memory
      const int64_t before = generation.hand_over_figures().ns;
      const auto start = std::chrono::steady_clock::now();
      std::optional<double> prefill;  // messages included
      bool has_ended = false;
      loop.Submit({.request = RandomRequest(loaded, num_tokens, random),
                   .text = {},
                   .deadline = {},
                   .sink = [&](const runtime::Delta& delta) {
                     const auto now = std::chrono::steady_clock::now();
                     if (!prefill) prefill = std::chrono::duration<double>(now - start).count();
                     has_ended = delta.is_last();
                     if (!delta.error.empty()) Throw(ErrorKind::kRunFailed, "{}", delta.error);
                   }});
      while (!has_ended) {
        if (loop.idle()) loop.Wait(std::chrono::milliseconds(10));
        loop.Step();
      }
      if (i < 0) continue;
      times.prefills.push_back(*prefill);
      times.hand_overs.push_back(static_cast<double>(generation.hand_over_figures().ns - before) *
                                 1e-9);
    }
    prompts.Stop();
  }
  ::waitpid(child, nullptr, 0);
  times.Print(fmt::format("prompt of {} tokens from a process of its own{}", num_tokens,
                          is_mapped ? "" : " over TCP"),
              generation.hand_over_figures());
}

void Measure(const LoadedModel& context_model, const LoadedModel& generation_model,
             int32_t generation_ranks, const Options& options) {
  const int64_t num_tokens = TokensOfPrompt(context_model, options);
  runtime::Engine context(*context_model.model, OptionsFor(context_model, 1, num_tokens));
  runtime::Engine generation(*generation_model.model,
                             OptionsFor(generation_model, generation_ranks, num_tokens));
  std::mt19937 random(16);
  Times times;
  for (int i = -1; i < options.num_prompts; ++i) {  // the first touches memory
    runtime::Request request = RandomRequest(context_model, num_tokens, random);
    runtime::ComputedPrompt prompt;
    const double prefill = ComputePrompt(context, request, prompt);
    const int64_t before = generation.hand_over_figures().ns;
    generation.SubmitComputed(std::move(request), std::move(prompt));
    while (generation.num_unfinished() > 0) generation.Step();
    if (i < 0) continue;
    times.prefills.push_back(prefill);
    times.hand_overs.push_back(static_cast<double>(generation.hand_over_figures().ns - before) *
                               1e-9);
  }
  times.Print(fmt::format("prompt of {} tokens from 1 rank to {}", num_tokens, generation_ranks),
              generation.hand_over_figures());
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
    MeasureProcesses(whole, true, options);
    MeasureProcesses(whole, false, options);
    Measure(whole, whole, 1, options);
    Measure(whole, LoadForRanks(options.model, 2), 2, options);
    return 0;
  } catch (const wideload::Error& error) {
    fmt::print(stderr, "bench_disaggregation: {}\n", error.what());
    return wideload::ExitCode(error.kind());
  }
}
