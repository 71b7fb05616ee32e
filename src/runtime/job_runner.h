// What a front door asks of the engine that generates for it, or of several: jobs of any thread,
// and how the engines do.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "runtime/cached_prompt.h"
#include "runtime/engine_monitor.h"
#include "runtime/generation.h"
#include "runtime/prompt_computer.h"
#include "runtime/request.h"
#include "runtime/scheduler.h"

namespace wideload::runtime {

// Of one runner; never used again.
using JobId = int64_t;

// Takes what came of a request, in order, on its engine's thread or on one that works beside it
// while it computes (SideThread); the last delta says why it ended and nothing follows. It must not
// wait: all requests wait for it. It may call Submit and Cancel.
using DeltaSink = std::function<void(Delta delta)>;

// A request and who is told of its tokens.
struct Job {
  Request request;
  TextOptions text;
  // n: for each prompt position the log probability of its token and the n largest; -1: none.
  int32_t prompt_logprobs = -1;
  std::optional<std::chrono::steady_clock::time_point> deadline;  // then it ends with kDeadline
  // The engine that generates computes the prompt, too, where others would.
  bool computes_prompt = false;
  DeltaSink sink;
};

// The error of requests that end because the engine has failed; the cause is not for clients.
inline constexpr char kEngineStopped[] = "the engine has stopped";
// How those begin that end because the computed prompt is out of reach.
inline constexpr char kPromptNotRead[] = "the keys and values of the prompt could not be read";

// How an engine does, of its last iteration.
struct EngineFigures {
  int64_t num_waiting = 0;
  int64_t num_running = 0;
  int64_t num_iterations = 0;
  int64_t num_preemptions = 0;
  int64_t num_held = 0;  // whose blocks leases keep
  double kv_usage = 0;   // share of the blocks of all ranks' caches that are in use
  PrefixFigures prefixes;
  double mean_imbalance = 0;    // ExchangeFigures::MeanImbalance, since the start
  HandOverFigures hand_over;    // since the start
  int64_t num_own_prompts = 0;  // of Job::computes_prompt, likewise
  bool operator==(const EngineFigures&) const = default;
};
// Of several engines alike: sums, and of kv_usage and mean_imbalance the means.
EngineFigures SumOf(std::span<const EngineFigures> engines);

class JobRunner {
 public:
  virtual ~JobRunner() = default;

  // Any thread. A request that can never run ends with kError. Errors: kInvalid for stop strings
  // that are not allowed.
  virtual JobId Submit(Job job) = 0;
  // Any thread. Ends the request with kCancelled; unknown and ended ones are ignored.
  virtual void Cancel(JobId id) = 0;
  // Any thread. Requests have been ended for good, and later ones end at once: no engine is left,
  // or EndAll.
  virtual bool has_ended() const = 0;

  // Any thread, likewise the following of engine i < num_engines().
  virtual size_t num_engines() const { return 1; }
  // Whether it takes jobs.
  virtual bool is_running(size_t i) const = 0;
  // Of its last iteration.
  virtual EngineFigures figures(size_t i) const = 0;
  // What it has done; null while nobody watches.
  virtual const EngineMonitor* monitor(size_t i) const = 0;
  // Any thread. How often a request was begun anew because an engine had failed.
  virtual int64_t num_retries() const { return 0; }
  // Any thread; null: the engines compute prompts, too.
  virtual const PromptComputer* context() const = 0;
  // The sum of all figures, on any thread.
  EngineFigures AllFigures() const;

  // The following belong to one thread.

  // Notes from now on what the engines do; before the first Step.
  virtual void Watch() = 0;
  // Lets the engine of this thread take jobs and run one iteration; does nothing where all have
  // threads of their own. Errors: what ended the last of the engines; every request has then ended
  // with kError.
  virtual void Step() = 0;
  // Nothing is there for Step to do.
  virtual bool idle() const = 0;
  // Rests until there may be something, or `longest` is over.
  virtual void Wait(std::chrono::milliseconds longest) = 0;
  // Ends every request, those to come included, with kError and this reason.
  virtual void EndAll(const std::string& reason) = 0;
};

}  // namespace wideload::runtime
