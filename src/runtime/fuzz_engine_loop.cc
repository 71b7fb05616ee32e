// A script of requests, cancellations, deadlines and steps, made of the input, on an engine with a
// small model and little room: every request ends once, for a reason it was given, within its
// limits, and what it says does not go on after its end.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "grammar/json_schema.h"
#include "model/registry.h"
#include "model/transformer.h"
#include "runtime/engine_loop.h"
#include "runtime/text_limits.h"
#include "tokenizer/small_tokenizer.h"

namespace {

using namespace wideload;           // NOLINT(google-build-using-namespace): a program of one file
using namespace wideload::runtime;  // NOLINT(google-build-using-namespace)
using Clock = std::chrono::steady_clock;

struct LoadedModel {
  checkpoint::ModelConfig config;
  std::unique_ptr<model::Model> model;
};

LoadedModel Load() {
  const char* source = std::getenv("WIDELOAD_SOURCE_DIR");
  const std::string folder =
      std::string(source != nullptr ? source : ".") + "/testdata/models/tiny-qwen3-moe";
  model::ModelReading reading = model::ReadModel(folder);
  checkpoint::Checkpoint weights(folder);
  ThreadPool pool("load", 1);
  model::WeightLoader loader(weights, {.kernels = compute::AutoKernelSet(), .pool = &pool});
  auto loaded = model::LoadTransformer(reading.spec, loader);
  return {.config = std::move(reading.config), .model = std::move(loaded)};
}

// Takes the input apart; zeros follow its end.
class Script {
 public:
  Script(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  int Next(int limit) {
    const int byte = at_ < size_ ? data_[at_++] : 0;
    return byte % limit;
  }
  // One of these.
  template <class T>
  T Choose(std::initializer_list<T> values) {
    return values.begin()[Next(static_cast<int>(values.size()))];
  }
  bool is_at_end() const { return at_ >= size_; }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

class Run {
 public:
  Run(const LoadedModel& loaded, const tokenizer::Tokenizer& tokenizer, Script script)
      : script_(script),
        tokenizer_(tokenizer),
        vocab_size_(loaded.config.vocab_size),
        options_(OptionsOf()),
        engine_(*loaded.model, options_),
        loop_(engine_, &tokenizer, [this] { return now_; }) {}

  void Play() {
    for (int i = 0; i < 40 && !script_.is_at_end(); ++i) PlayOne(script_.Next(8));
    // No request runs for longer than its tokens, whatever it waits for.
    const int64_t enough = 1000 + 200 * std::ssize(jobs_);
    int64_t num_steps = 0;
    for (; !loop_.idle(); ++num_steps) {
      WIDELOAD_CHECK(num_steps < enough, "{} requests do not come to their end", jobs_.size());
      loop_.Step();
    }
    for (const auto& [id, job] : jobs_) WIDELOAD_CHECK(job.has_ended, "request {} is lost", id);
    // An event of a request that was cancelled last may still be there; nobody waits for it.
    WIDELOAD_CHECK(engine_.num_unfinished() == 0 && engine_.scheduler().kv_usage() == 0,
                   "{} requests and {} of the blocks are left", engine_.num_unfinished(),
                   engine_.scheduler().kv_usage());
  }

 private:
  struct Told {
    int64_t max_tokens = 0;
    bool has_deadline = false;
    int64_t num_tokens = 0;
    bool has_ended = false;
  };

  EngineOptions OptionsOf() {
    EngineOptions options;
    options.kernels = compute::AutoKernelSet();
    options.layout = parallel::DataParallel(script_.Choose({1, 1, 1, 2}));
    options.max_num_tokens = script_.Choose({1, 7, 32, 64});
    options.max_batch_size = script_.Choose({1, 2, 5});
    options.num_kv_blocks = script_.Choose({1, 2, 3, 8});
    options.max_seq_len = script_.Choose({8, 40, 100});
    options.prefix_cache = script_.Next(2) == 1;
    return options;
  }

  void PlayOne(int what) {
    if (what < 3) return Submit();
    if (what == 3) return Cancel(script_.Next(static_cast<int>(jobs_.size()) + 1));
    if (what == 4) now_ += std::chrono::seconds(script_.Next(4));
    if (what == 5) loop_.Wait(std::chrono::milliseconds(0));
    loop_.Step();
  }

  Request NextRequest() {
    Request request;
    const int length = script_.Choose({0, 1, 2, 5, 17, 33, 60, 120});
    for (int i = 0; i < length; ++i)
      request.prompt.push_back((i * 7 + length) % static_cast<int>(vocab_size_));
    if (script_.Next(16) == 0 && length > 0) request.prompt[0] = script_.Choose({-1, 1 << 20});
    request.max_tokens = script_.Choose({0, 1, 2, 9, 30, -1});
    request.min_tokens = script_.Choose({0, 0, 0, 1, 40});
    request.index = jobs_.size();
    request.priority = script_.Choose({0, 0, 1, -1, INT32_MAX, INT32_MIN});
    request.sampling = {.temperature = script_.Choose({0.0, 0.7, 1e5, -1.0}),
                        .top_k = script_.Choose({0, 1, 5}),
                        .top_p = script_.Choose({1.0, 0.5, 1e-9}),
                        .min_p = script_.Choose({0.0, 0.99}),
                        .repetition_penalty = script_.Choose({1.0, 1.3, 1e-300}),
                        .presence_penalty = script_.Choose({0.0, 2.0}),
                        .num_logprobs = script_.Choose({-1, 0, 3, 1 << 20})};
    const int num_eos = script_.Choose({0, 1, 200});
    for (int i = 0; i < num_eos; ++i) request.eos_ids.push_back(i - 1);
    request.grammar = NextGrammar();
    if (script_.Next(4) == 0)
      request.logit_bias = {{.id = script_.Next(250), .bias = script_.Choose({-100.F, 100.F})}};
    return request;
  }

  std::shared_ptr<grammar::TokenGrammar> NextGrammar() {
    const int which = script_.Next(8);
    if (which > 2) return nullptr;
    const auto trie = std::make_shared<const grammar::TokenTrie>(
        tokenizer_, vocab_size_ + (script_.Next(16) == 0 ? 1 : 0));
    grammar::Grammar chosen = which == 0   ? grammar::ObjectGrammar()
                              : which == 1 ? grammar::ChoiceGrammar({"ab", "abc", "\xc3\xa9"})
                                           : grammar::PatternGrammar("a{3}b*", "pattern");
    return std::make_shared<grammar::TokenGrammar>(std::move(chosen), trie);
  }

  void Submit() {
    Job job{.request = NextRequest(),
            .text = {.stop = {}, .skip_special = script_.Next(2) == 0},
            .prompt_logprobs = script_.Choose({-1, -1, 0, 2}),
            .deadline = {},
            .sink = {}};
    for (int i = script_.Choose({0, 0, 1, 3}); i > 0; --i)
      job.text.stop.push_back(script_.Choose<std::string>({"a", "ab", " ", ""}));
    if (script_.Next(4) == 0) job.deadline = now_ + std::chrono::seconds(script_.Next(3));
    const Told told{.max_tokens = job.request.max_tokens, .has_deadline = job.deadline.has_value()};
    const auto next = static_cast<JobId>(jobs_.size());
    job.sink = [this, next](const Delta& delta) { Take(next, delta); };
    const bool is_allowed = InvalidStop(job.text.stop).empty();
    try {
      WIDELOAD_CHECK(loop_.Submit(std::move(job)) == next, "request {} has another number", next);
    } catch (const Error& error) {
      WIDELOAD_CHECK(!is_allowed, "refused: {}", error.what());
      return;
    }
    WIDELOAD_CHECK(is_allowed, "stop strings that are not allowed are taken");
    jobs_[next] = told;
  }

  void Cancel(int at) {
    cancelled_.insert(at);
    loop_.Cancel(at);
  }

  void Take(JobId id, const Delta& delta) {
    Told& told = jobs_.at(id);
    WIDELOAD_CHECK(!told.has_ended, "request {} goes on after its end", id);
    told.num_tokens += delta.token >= 0 ? 1 : 0;
    told.has_ended = delta.is_last();
    WIDELOAD_CHECK(delta.token < vocab_size_, "token {}", delta.token);
    WIDELOAD_CHECK(told.num_tokens <= std::max<int64_t>(told.max_tokens, 0), "{} of {} tokens",
                   told.num_tokens, told.max_tokens);
    if (!told.has_ended) return;
    const FinishReason reason = delta.finish;
    WIDELOAD_CHECK(reason != FinishReason::kCancelled || cancelled_.contains(id),
                   "nobody cancelled {}", id);
    WIDELOAD_CHECK(reason != FinishReason::kDeadline || told.has_deadline, "{} has no deadline",
                   id);
    WIDELOAD_CHECK((reason == FinishReason::kError) == !delta.error.empty(), "{}: '{}'",
                   FinishReasonName(reason), delta.error);
    WIDELOAD_CHECK(reason != FinishReason::kLength || told.num_tokens == told.max_tokens,
                   "{} of {} tokens", told.num_tokens, told.max_tokens);
    // A sink may cancel, too.
    if (script_.Next(32) == 1) Cancel(script_.Next(40));
  }

  Script script_;
  const tokenizer::Tokenizer& tokenizer_;
  int64_t vocab_size_;
  EngineOptions options_;
  Clock::time_point now_{};
  std::map<JobId, Told> jobs_;
  std::set<JobId> cancelled_;
  Engine engine_;
  EngineLoop loop_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const LoadedModel loaded = Load();
  static const tokenizer::Tokenizer tokenizer = tokenizer::Tokenizer::FromText(
      DumpJson(tokenizer::SmallTokenizerJson({"a b"})), "small.json");
  Run(loaded, tokenizer, Script(data, size)).Play();
  return 0;
}
