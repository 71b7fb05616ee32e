// Requests of any thread on the engine's one thread: an inbox with a wake-up, what each request
// generated handed to its sink, deadlines, and rest while there is nothing to do.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/wait.h"
#include "runtime/engine.h"
#include "runtime/engine_monitor.h"
#include "runtime/generation.h"
#include "runtime/job_runner.h"
#include "runtime/prompt_computer.h"
#include "runtime/token_engine.h"

namespace wideload::runtime {

class EngineLoop final : public JobRunner {
 public:
  // What is now.
  using Now = std::function<std::chrono::steady_clock::time_point()>;

  // `engine` and `tokenizer` (null: tokens without text) must outlive the loop. Takes the engine's
  // logits sink.
  EngineLoop(Engine& engine, const tokenizer::Tokenizer* tokenizer,
             Now now = std::chrono::steady_clock::now);
  // The same with an engine that may be elsewhere.
  EngineLoop(TokenEngine& engine, const tokenizer::Tokenizer* tokenizer,
             Now now = std::chrono::steady_clock::now);
  ~EngineLoop() override;
  EngineLoop(const EngineLoop&) = delete;
  EngineLoop& operator=(const EngineLoop&) = delete;

  // What came of either is told in the next Step.
  JobId Submit(Job job) override;
  void Cancel(JobId id) override;
  // Work for the engine between two iterations; must not throw.
  using Work = std::function<void(Engine* engine)>;
  // Any thread. Calls `work` once: on the engine's thread within the next Step, before requests
  // that come later; with null, on any thread, when requests have been ended for good.
  void Post(Work work);
  bool has_ended() const override { return has_ended_; }
  // Any thread: Wait returns.
  void Wake();

  // The following belong to the engine's thread.

  // Takes what is in the inbox and runs one iteration. What came of it is handed out while the next
  // one runs (docs/adr/0021-tokens-are-handed-out-behind-the-next-orders.md), or at once where none
  // follows. Errors: as Engine::Step; every request has then ended with kError, and no later one
  // runs.
  void Step() override;
  // Nothing is there for the engine to do: no request that has not ended, but those whose prompts
  // others compute.
  bool idle() const override;
  // Rests until something came into the inbox, Wake was called, or `longest` is over; may return
  // early.
  void Wait(std::chrono::milliseconds longest) override;

  void EndAll(const std::string& reason) override;

  // Has prompts computed by others, whose engines hand them over to this one, but those of jobs
  // with computes_prompt; before the first Step. A prompt that has not been fetched so long after
  // its end ends with kError. `computer` must outlive the loop.
  void UseContext(PromptComputer& computer, std::chrono::milliseconds transfer_timeout) {
    context_ = &computer;
    transfer_timeout_ = transfer_timeout;
  }

  const PromptComputer* context() const override { return context_; }

  // Of an engine of this process.
  void Watch() override {
    if (engine_.local() != nullptr) monitor_.emplace(*engine_.local());
  }
  const EngineMonitor* monitor() const { return monitor_ ? &*monitor_ : nullptr; }
  const EngineMonitor* monitor(size_t /*i*/) const override { return monitor(); }

  bool is_running(size_t /*i*/) const override { return !has_ended_; }
  EngineFigures figures() const;
  EngineFigures figures(size_t /*i*/) const override { return figures(); }

 private:
  struct Active {
    RequestId request_id = -1;  // -1: its prompt is computed elsewhere
    Generation generation;
    DeltaSink sink;
    std::optional<std::chrono::steady_clock::time_point> deadline;
    int32_t num_prompt_logprobs = -1;
    std::vector<int32_t> prompt;  // with prompt logprobs
    std::vector<std::vector<TokenLogprob>> prompt_logprobs;
    std::chrono::steady_clock::time_point begun;  // as Delta
    Request request;                              // that goes on here when its prompt is computed
    std::function<void()> cancel_prompt;          // of that one; empty: there is none
    std::chrono::steady_clock::time_point computed;  // when it was
  };
  // What came of a prompt that others compute.
  struct ContextDelta {
    JobId id = -1;
    Delta delta;
  };
  using Jobs = std::map<JobId, Active>;
  struct Arrival {
    JobId id = -1;
    Job job;
    Generation generation;
  };

  EngineLoop(std::unique_ptr<TokenEngine> own, TokenEngine* other,
             const tokenizer::Tokenizer* tokenizer, Now now);
  void TakeInbox();
  void Start(Arrival arrival);
  void BeginPrompt(JobId id, Job job);
  void TakePrompt(ContextDelta prompt);
  void EndUnfetched();
  void EndLate();
  void NoteBegun(std::chrono::steady_clock::time_point time);
  void HandOut();
  void Deliver(const Event& event);
  void Finish(Jobs::iterator job);
  void TakePromptLogits(RequestId id, int64_t position, std::span<const float> logits);
  void FailAll(const std::string& reason);
  void EndWorks();
  void NoteFigures();

  std::unique_ptr<TokenEngine> own_engine_;  // null: it is another's
  TokenEngine& engine_;
  const tokenizer::Tokenizer* tokenizer_;
  Now now_;

  std::mutex inbox_mutex_;
  std::vector<Arrival> arrivals_;      // of the inbox
  std::vector<JobId> cancellations_;   // of the inbox
  std::vector<ContextDelta> prompts_;  // of the inbox
  std::vector<Work> works_;            // of the inbox
  bool takes_works_ = true;            // of the inbox
  std::vector<Arrival> new_arrivals_;  // the inbox's, taken
  std::vector<JobId> new_cancellations_;
  std::vector<ContextDelta> new_prompts_;
  std::atomic<JobId> next_id_{0};
  EventWord wake_;
  uint32_t seen_ = 0;  // of wake_, when the inbox was taken last

  PromptComputer* context_ = nullptr;  // null: the engine computes prompts, too
  std::chrono::milliseconds transfer_timeout_{0};
  Jobs jobs_;
  int64_t num_elsewhere_ = 0;  // of the jobs: whose prompts others compute
  std::map<RequestId, JobId> job_of_;
  std::vector<TokenLogit> scratch_;
  std::span<const Event> events_;  // of the last iteration, that have not been handed out
  std::optional<EngineMonitor> monitor_;
  std::string failure_;  // of the engine; empty: none
  std::atomic<bool> has_ended_{false};
  mutable std::mutex figures_mutex_;
  EngineFigures figures_;
};

// Runs the engine until the job has ended; asks between iterations whether it is to be cancelled.
// Errors: as EngineLoop::Step; kRunFailed with what the engine says against the request.
void RunJob(EngineLoop& loop, Job job, const std::function<bool()>& is_cancelled);

}  // namespace wideload::runtime
