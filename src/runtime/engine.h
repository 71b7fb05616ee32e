// The engine: takes requests, runs iterations on all ranks in step, gives back events. R ranks are
// R threads of this process, or R processes of which this one is rank 0; each has its own pool, KV
// cache and scratch. Submit, Cancel and Step are called from one thread.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "model/model.h"
#include "rebalance/online_balancer.h"
#include "runtime/cached_prompt.h"
#include "runtime/engine_options.h"
#include "runtime/exchange_figures.h"
#include "runtime/scheduler.h"
#include "runtime/team.h"

namespace wideload::runtime {

// Why the engine would refuse the request: sampling fields or ids out of range, too long for the
// context or the KV cache. "" when it would run. Lets a command refuse before a model is loaded.
std::string RefusalReason(const Request& request, const EngineOptions& options, int64_t vocab_size);

// What one iteration was, for logs and reports.
struct GroupIteration {
  int64_t num_requests = 0;
  int64_t num_prompt_requests = 0;
  int64_t num_prompt_tokens = 0;
  int64_t num_generated_tokens = 0;
};
// What one iteration did, and where its time went.
struct IterationInfo {
  int64_t iteration = -1;
  std::vector<GroupIteration> groups;  // of ranks that share requests
};

class Engine {
 public:
  // Starts the rank threads. `model` must outlive the engine. Errors: kInvalid for a layout that
  // does not fit the model; what ended a rank at its start.
  Engine(const model::Model& model, const EngineOptions& options);
  // The same with ranks that are processes: this one is rank 0, each other one runs a RankServer.
  // Collective. `links` must outlive the engine.
  Engine(const model::Model& model, const EngineOptions& options, const RankLinks& links);
  // Ends the threads, or lets the other processes go. While a rank is stuck, what its thread uses
  // is left in memory.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Takes a request. A request that can never run ends with an error event of the next Step.
  RequestId Submit(Request request);
  // Takes a request whose prompt another engine has computed (HandOverRefusal): goes on behind
  // `prompt.token`, of which there is no event, with the bits of an engine that has computed it
  // itself. The lease ends when the keys and values are here; where they cannot be had the request
  // ends with an error. No request with prompt_logits.
  RequestId SubmitComputed(Request request, ComputedPrompt prompt);
  // Whether the request still waits for its prompt's keys and values.
  bool HasLease(RequestId id) const { return leases_.contains(id); }
  // Ends all leases; their requests must not run any more.
  void DropLeases() { leases_.clear(); }
  const HandOverFigures& hand_over_figures() const { return hand_over_; }

  // What the cache holds of a request with keeps_cache that has ended by its length; of ranks that
  // are threads. None of others.
  std::optional<CachedSequence> Kept(RequestId id) const;
  // Lets go of that. Unknown ids are ignored.
  void Release(RequestId id);

  // Ends a request; its event comes with the next Step. Unknown or finished ids are ignored.
  void Cancel(RequestId id);

  // One iteration on all ranks (none when there is nothing to compute); of stages, each carries its
  // micro-batch through its layers, and the events are of the one that comes out of the last: when
  // there is none, last_iteration() stays the same one and its groups are empty. The events are
  // valid until the next call has returned. While ranks compute, `meanwhile` is called once, by
  // this thread or another one; it may call Cancel and Kept. Errors: rethrows what ended the first
  // rank that failed (kRunFailed when a rank does not answer within the deadline), now and at every
  // later call with something to compute; comm::PeerLost also with nothing to compute when a rank
  // that is a process has died. What it costs: all requests that have not ended, whose tokens up to
  // the iteration before were delivered, and the events of those refused or cancelled since the
  // call before; those that ended are not touched. The engine computes nothing any more.
  std::span<const Event> Step(const std::function<void()>& meanwhile = {});
  // After Step has thrown: ranks whose thread never came back. It may go on using the model and the
  // recorder at any time, so write what has to be written and end the process with std::_Exit.
  std::span<const int32_t> stuck_ranks() const { return team_->stuck_ranks(); }

  // Requests submitted that have not ended.
  int64_t num_unfinished() const { return scheduler_->num_waiting() + scheduler_->num_running(); }
  // Nothing submitted that has not ended.
  bool idle() const { return scheduler_->idle() && pending_.empty(); }

  // Called within Step for each prompt position of requests with prompt_logits, in order of
  // position: logits [vocab_size].
  using LogitsSink =
      std::function<void(RequestId, int64_t position, std::span<const float> logits)>;
  void SetLogitsSink(LogitsSink sink) { logits_sink_ = std::move(sink); }

  // Records the routed counts of every iteration from the next on; must outlive the engine. Null
  // ends it.
  void SetRecorder(statistics::Recorder* recorder);
  // Asked at the start of every iteration for a change of placements that it is to announce: the
  // ranks go by it from this iteration on, with slots that own their bytes from the next one on
  // (AnnouncedAhead). Generations go up. Step throws kInvalid for a change that does not fit.
  using PlacementSource =
      std::function<std::optional<rebalance::PlacementChange>(int64_t iteration)>;
  // In place of the balancer that the options ask for.
  void SetPlacementSource(PlacementSource source) { placement_source_ = std::move(source); }
  // Whether the iterations to come are warm-up, whose load the balancer does not plan for.
  void SetWarmup(bool is_warmup) { is_warmup_ = is_warmup; }
  // Requests to come find no prefix that was computed before; call between iterations.
  void DropPrefixes() { scheduler_->DropPrefixes(); }
  // Null when nothing is balanced: it is off, or the model has no experts, or there is one rank.
  const rebalance::OnlineBalancer* balancer() const { return balancer_.get(); }
  rebalance::OnlineBalancer* balancer() { return balancer_.get(); }
  // Has every iteration from the next on counted for routed_counts; where it is balanced, it is.
  void CountRouted() {
    is_counting_ = true;
    team_->CountRouted(true);
  }
  // (token, k) pairs that the last iteration routed to each expert, of all ranks [MoE layers *
  // experts]; empty where nothing is counted.
  std::span<const int32_t> routed_counts() const { return routed_counts_; }
  // Thread CPU time that Step has spent on the balancer: summing counts up, handing them on, taking
  // changes.
  int64_t balancing_ns() const { return balancing_ns_; }
  // Rows that a rank of a stage computed in each MoE layer of the last iteration [MoE layers]: each
  // layer is of another stage's rank, the one with this place among those of its stage.
  std::span<const int64_t> ComputedRows(int32_t rank) const {
    return std::span(computed_rows_)
        .subspan(static_cast<size_t>(rank) * num_moe_layers_, num_moe_layers_);
  }
  // Rows of the exchange that a rank has sent to each of its stage [ranks of a stage], itself
  // included, since the start; empty when there is none.
  std::span<const int64_t> SentRows(int32_t rank) const {
    return team_->result(static_cast<size_t>(rank)).sent_rows;
  }
  // Of a rank: its host, numbered in the order of their first ranks.
  int32_t HostOf(int32_t rank) const {
    return host_of_rank_.empty() ? 0 : host_of_rank_[static_cast<size_t>(rank)];
  }
  // When the rank had carried out its part of the last iteration; of another process, when that was
  // heard.
  std::chrono::steady_clock::time_point EndOf(int32_t rank) const {
    return team_->result(static_cast<size_t>(rank)).ended;
  }
  // Of the last iteration, where options.is_metered.
  RankTimes Times(int32_t rank) const { return team_->result(static_cast<size_t>(rank)).times; }
  // Since the start; call between iterations.
  ExchangeFigures exchange_figures() const;
  // What all ranks have recorded in options.trace; call between iterations, or after Step has
  // thrown: then without ranks that are other processes. Errors: as Step.
  std::vector<trace::TrackData> ReadTrace() { return team_->ReadTrace(); }

  const IterationInfo& last_iteration() const { return info_; }
  // The one that is planned next; those before it that are not in last_iteration() yet are in
  // stages of a pipeline.
  int64_t next_iteration() const;
  const Scheduler& scheduler() const { return *scheduler_; }
  const EngineOptions& options() const { return options_; }
  // Of the model.
  const moe::MoeShape& moe_shape() const { return moe_shape_; }
  // Positions among its MoE layers of those of a stage.
  parallel::Shard MoeLayersOf(int32_t stage) const;

 private:
  Engine(const model::Model& model, const EngineOptions& options, std::unique_ptr<Team> team);
  struct Pipeline;
  bool PlanNext();
  bool Fill(MicroBatch& batch);
  bool IsOnItsWay(RequestId id) const;
  CachedSequence Cached(const Sequence& sequence) const;
  void FetchPrompts(MicroBatch& batch);
  bool FetchPrompt(Sequence& sequence);
  void Collect(const MicroBatch& batch);
  void CountRows(std::span<MicroBatch* const> stages);
  void DeliverPromptLogits(const PlanEntry& entry, const RankOutput& output);
  void LogIteration(std::chrono::steady_clock::time_point begin) const;
  std::optional<rebalance::PlacementChange> NextChange(int64_t iteration);
  void TellBalancer(const MicroBatch& home);
  void NoteAllowedTokens(const MicroBatch& batch) const;
  void Fail(RequestId id, std::string error);
  void Retire(RequestId id);
  void LeaveToStuckRanks();

  EngineOptions options_;
  std::vector<int> host_of_rank_;  // empty: all are on one
  const model::ModelSpec* spec_;
  moe::MoeShape moe_shape_;
  int64_t vocab_size_;
  size_t num_moe_layers_;
  // These are used by the rank threads; a stuck one keeps them (see the destructor).
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<Team> team_;
  std::unique_ptr<Pipeline> pipeline_;
  std::vector<Event> pending_;  // events known before the next iteration
  std::vector<Event> events_;
  std::vector<Event> returned_;  // by the call of Step before
  LogitsSink logits_sink_;
  PlacementSource placement_source_;
  std::unique_ptr<rebalance::OnlineBalancer> balancer_;
  trace::Track* track_ = nullptr;       // of the thread that calls Step; null: nothing is traced
  std::vector<int32_t> routed_counts_;  // [MoE layers * experts] of all ranks
  bool is_counting_ = false;
  bool is_warmup_ = false;
  int64_t balancing_ns_ = 0;
  IterationInfo info_;
  RequestId next_id_ = 0;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  double imbalance_sum_ = 0;
  double balancedness_sum_ = 0;
  int64_t num_imbalances_ = 0;
  std::vector<double> rank_rows_;       // [ranks of a stage] of one layer
  std::vector<int64_t> computed_rows_;  // [ranks of a stage][MoE layers]
  std::vector<RequestId> cancelled_;    // of those whose micro-batch is on its way
  // Of requests whose prompts have not been fetched.
  std::map<RequestId, std::shared_ptr<const PromptLease>> leases_;
  HandOverFigures hand_over_;
};

}  // namespace wideload::runtime
