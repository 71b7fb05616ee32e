// Engines that generate for one front door, each on a thread of its own; others compute the prompts
// for all of them. What one that fails had under way is given to others, or ends with an error; the
// others go on.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/wait.h"
#include "runtime/engine_thread.h"
#include "runtime/job_runner.h"
#include "runtime/server_router.h"

namespace wideload::runtime {

class GenerationEngines final : public JobRunner {
 public:
  // What all engines have in common; what is pointed to must outlive them.
  struct Common {
    const tokenizer::Tokenizer* tokenizer = nullptr;  // null: tokens without text
    PromptComputer* contexts = nullptr;
    std::chrono::milliseconds transfer_timeout{60'000};  // EngineLoop::UseContext
    ServerRouting routing = ServerRouting::kRoundRobin;
    // Prompts of which the chosen engine was given the beginning before, and which have at most so
    // many tokens more, it computes itself; not those whose log probabilities are asked for, of
    // which all is computed. With kCacheAware; nothing: `contexts` compute all prompts.
    std::optional<int64_t> max_own_prefill = std::nullopt;
    // How often a request is begun anew when an engine that had it, or its prompt, has failed. It
    // gives the same tokens again, of which its sink gets those that it has not had.
    int32_t max_retries = 0;
  };
  // One or more, which must outlive this, and `others`, which are elsewhere, behind them. They
  // begin with the first Step.
  GenerationEngines(std::span<Engine* const> engines, const Common& common,
                    std::span<TokenEngine* const> others = {});
  // Ends what is under way, with errors, and the threads.
  ~GenerationEngines() override;

  // To the engine that the router chooses, until it fails.
  JobId Submit(Job job) override;
  void Cancel(JobId id) override;
  bool has_ended() const override;
  size_t num_engines() const override { return members_.size(); }
  bool is_running(size_t i) const override { return members_[i]->is_running(); }
  EngineFigures figures(size_t i) const override { return members_[i]->loop().figures(); }
  const EngineMonitor* monitor(size_t i) const override { return members_[i]->loop().monitor(); }
  const PromptComputer* context() const override { return common_.contexts; }
  int64_t num_retries() const override { return num_retries_; }

  void Watch() override;
  // Of any one thread. Begins; later only says when no engine is left. Errors: what ended the last
  // one.
  void Step() override;
  bool idle() const override { return wake_.Load() == seen_; }
  void Wait(std::chrono::milliseconds longest) override { wake_.Sleep(seen_, longest); }
  void EndAll(const std::string& reason) override;

  // Ends the threads, as the destructor does.
  void Stop();
  // What ended an engine; null: nothing. After Stop.
  std::exception_ptr failure(size_t i) const { return members_[i]->failure(); }

 private:
  // A request until it ends.
  struct Open {
    Job job;           // as it came
    std::mutex mutex;  // guards the next four
    size_t engine = 0;
    JobId engine_id = -1;
    int32_t num_retries_left = 0;
    bool is_cancelled = false;
    // Of the thread of its engine.
    int64_t num_made = 0;  // tokens of this try
    int64_t num_told = 0;  // tokens that the sink has had
  };
  void Give(const std::shared_ptr<Open>& open, JobId id);
  void Take(const std::shared_ptr<Open>& open, JobId id, Delta delta);
  bool BeginAgain(const std::shared_ptr<Open>& open, JobId id, const Delta& last);
  void Forget(JobId id);

  const Common common_;
  std::vector<std::unique_ptr<EngineThread>> members_;
  ServerRouter router_;
  std::mutex mutex_;  // guards the next two
  JobId next_id_ = 0;
  std::map<JobId, std::shared_ptr<Open>> open_;
  std::atomic<int64_t> num_retries_{0};
  std::atomic<bool> is_ending_{false};  // nothing begins anew
  bool has_begun_ = false;
  EventWord wake_;  // an engine has failed
  uint32_t seen_ = 0;
};

}  // namespace wideload::runtime
