// The engine: takes requests, runs iterations on all ranks in step, gives back events. R ranks are
// R threads of this process, each with its own pool, KV cache and scratch; all share the model's
// weights. Submit, Cancel and Step are called from one thread.
#pragma once

#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "base/wait.h"
#include "comm/local/local_communicator.h"
#include "exchange/local_fabric.h"
#include "model/model.h"
#include "runtime/rank.h"
#include "runtime/scheduler.h"

namespace wideload::runtime {

struct EngineOptions {
  compute::KernelSet kernels = compute::KernelSet::kReference;
  int32_t num_ranks = 1;
  int32_t threads_per_rank = 1;
  int64_t max_num_tokens = 2048;            // per rank and iteration
  int64_t max_batch_size = 64;              // per rank
  int64_t max_seq_len = 0;                  // at most the model's context
  int64_t num_kv_blocks = 0;                // per rank
  int32_t num_slots = 0;                    // over all ranks; 0: one per expert
  std::vector<eplb::Placement> placements;  // [MoE layers]; empty: contiguous
  eplb::SplitMode split = eplb::SplitMode::kOptimal;
  int64_t moe_max_num_tokens =
      0;  // tokens of all ranks that go through an MoE layer at once; 0: all
  std::chrono::milliseconds deadline{60'000};  // longest wait for another rank
};

// Why the engine would refuse the request: sampling fields or ids out of range, too long for the
// context or the KV cache. "" when it would run. Lets a command refuse before a model is loaded.
std::string RefusalReason(const Request& request, const EngineOptions& options, int64_t vocab_size);

// What one iteration was, for logs and reports.
struct RankIteration {
  int64_t num_requests = 0;
  int64_t num_prompt_requests = 0;
  int64_t num_prompt_tokens = 0;
  int64_t num_generated_tokens = 0;
};
struct IterationInfo {
  int64_t iteration = -1;
  std::vector<RankIteration> ranks;
};

class Engine {
 public:
  // Starts the rank threads. `model` must outlive the engine.
  Engine(const model::Model& model, const EngineOptions& options);
  // Ends the rank threads. When one of them is lost (Step threw because it did not answer) it
  // cannot be ended: prints the reason and ends the process with exit code 1.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Takes a request. A request that can never run ends with an error event of the next Step.
  RequestId Submit(Request request);
  // Ends a request; its event comes with the next Step. Unknown or finished ids are ignored.
  void Cancel(RequestId id);

  // One iteration on all ranks (none when there is nothing to compute). The events are valid until
  // the next call. Errors: rethrows what ended a rank (kRunFailed when a peer was lost).
  std::span<const Event> Step();

  // Nothing submitted that has not ended.
  bool idle() const { return scheduler_.idle() && pending_.empty(); }

  // Called within Step for each prompt position of requests with prompt_logits, in order of
  // position: logits [vocab_size].
  using LogitsSink =
      std::function<void(RequestId, int64_t position, std::span<const float> logits)>;
  void SetLogitsSink(LogitsSink sink) { logits_sink_ = std::move(sink); }

  // Records the routed counts of every iteration from the next on; must outlive the engine. Null
  // ends it.
  void SetRecorder(statistics::Recorder* recorder);
  // Rows that a rank computed in each MoE layer of the last iteration [MoE layers].
  std::span<const int64_t> ComputedRows(int32_t rank) const {
    return ranks_[static_cast<size_t>(rank)]->computed_rows();
  }

  const IterationInfo& last_iteration() const { return info_; }
  const Scheduler& scheduler() const { return scheduler_; }
  const EngineOptions& options() const { return options_; }

 private:
  void RunRanks(const StepPlan& plan);
  void StopRanks();
  bool WaitForRanks(uint32_t all_done);
  [[noreturn]] void RethrowFailure() const;
  void RankMain(int32_t rank);
  void Collect(const StepPlan& plan);
  void DeliverPromptLogits(const PlanEntry& entry, const RankOutput& output);

  EngineOptions options_;
  Scheduler scheduler_;
  moe::MoeLayout moe_layout_;
  comm::LocalGroup group_;
  std::unique_ptr<exchange::LocalFabrics> fabrics_;
  std::vector<std::unique_ptr<Rank>> ranks_;
  std::vector<Event> pending_;  // events known before the next iteration
  std::vector<Event> events_;
  LogitsSink logits_sink_;
  IterationInfo info_;
  RequestId next_id_ = 0;

  const StepPlan* plan_ = nullptr;
  WaitLadder ladder_;
  EventWord round_;
  EventWord done_;
  std::atomic<bool> stop_{false};
  std::vector<std::exception_ptr> failures_;  // per rank
  bool is_rank_lost_ = false;
  std::vector<std::jthread> threads_;
};

}  // namespace wideload::runtime
