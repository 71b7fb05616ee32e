// The ranks of an engine as threads of this process: they carry out step plans in step, and when
// one fails or stops answering, all end. Used by the engine's thread.
#pragma once

#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "base/wait.h"
#include "comm/local/local_communicator.h"
#include "comm/stall_timer.h"
#include "exchange/local_fabric.h"
#include "model/model.h"
#include "runtime/cached_prompt.h"
#include "runtime/engine_options.h"
#include "runtime/rank.h"
#include "runtime/step.h"

namespace wideload::runtime {

class RankTeam {
 public:
  // Makes the ranks; `model` must outlive the team. Errors: kInvalid for a layout that does not fit
  // the model.
  RankTeam(const model::Model& model, const EngineOptions& options);
  // No rank may be stuck.
  ~RankTeam();
  RankTeam(const RankTeam&) = delete;
  RankTeam& operator=(const RankTeam&) = delete;

  // Starts the threads; returns when every rank is up. Errors: as Run.
  void Start();
  // Every rank carries out its part of the step; returns when all have.
  // Errors: kInvalid for a change of placements that does not fit: nothing has happened. Rethrows
  // what ended the first rank that failed, and again at every later call. When a rank does not
  // answer: kRunFailed (comm::PeerLost where another rank found out), after the deadline and kGrace
  // at most; then stuck_ranks() names it.
  void Run(const TeamStep& step);
  // Ends the threads of all ranks that are not stuck, and lets go of the others. Returns whether
  // none is stuck; if one is, this object must stay as long as the process.
  bool Stop();
  // Threads do not die by themselves.
  void CheckLives() {}

  // Ranks whose thread neither ended the last plan nor noticed that the others had failed.
  std::span<const int32_t> stuck_ranks() const { return stuck_ranks_; }
  // Of the last iteration. r < size().
  RankResult result(size_t r) const { return members_[r]->rank->result(); }
  // Of one of a rank's micro-batches; read and written between iterations only.
  const kv::PagedCache* cache(size_t r, int32_t micro_batch) const {
    return &members_[r]->rank->cache(micro_batch);
  }
  // CopySequence; between iterations only.
  static FetchResult Fetch(const CachedSequence& from, const CachedSequence& to,
                           int64_t first_block) {
    return {.num_bytes = CopySequence(from, to, first_block), .error = {}};
  }
  void SetRecorder(statistics::Recorder* recorder);
  // Whether results have routed_counts, from the next iteration on; after Start.
  void CountRouted(bool is_counting);
  // The plans to come do not have this sequence any more.
  void Forget(RequestId) {}
  // What options.trace holds.
  std::vector<trace::TrackData> ReadTrace() const;
  size_t size() const { return members_.size(); }

  // Ranks that get on with their work notice at their next wait that another one has failed, those
  // that wait within a wait slice; after so long in which none gets on, who has not is stuck.
  static constexpr std::chrono::milliseconds kGrace{600};

 private:
  struct Member {
    std::unique_ptr<Rank> rank;
    std::atomic<uint32_t> num_ended{0};  // rounds; publishes failure
    std::exception_ptr failure;
    std::jthread thread;
  };

  void RunRound(const TeamStep& step = {});
  std::exception_ptr Accompany(const TeamStep& step);
  bool KeepWaiting();
  void FindStuckRanks();
  std::exception_ptr FirstFailure() const;
  RankStep StepOfRank(int32_t rank, uint32_t round);
  void ThreadMain(int32_t rank);

  std::chrono::milliseconds deadline_;
  parallel::Layout layout_;
  int32_t announcer_;          // the rank that raises ending_: the first of the last stage
  const trace::Trace* trace_;  // null: nothing is traced
  PlacementState placements_;
  comm::LocalGroup group_;
  std::unique_ptr<exchange::DeviceRows> device_rows_;  // of ranks on devices; else null
  std::unique_ptr<exchange::LocalFabrics> fabrics_;    // null when the model has no experts
  std::vector<std::unique_ptr<Member>> members_;
  std::exception_ptr failure_;
  std::vector<int32_t> stuck_ranks_;

  // The step, in what stays where it is when a rank is stuck.
  std::vector<MicroBatch*> stages_;  // of each stage; none: start
  WaitLadder ladder_;
  EventWord round_;    // raised once per round
  EventWord allowed_;  // has the number of the last round whose `note_allowed` has returned
  bool notes_allowed_ = false;
  EventWord ending_;  // has the number of the last round of which a rank says that it is to end
  EventWord done_;    // rounds that ranks ended, over all ranks
  uint32_t num_rounds_ = 0;
  std::atomic<bool> stop_{false};
  std::optional<comm::StallTimer> stall_;    // since the first rank ended this round
  std::optional<comm::StallTimer> failing_;  // since a failure is known
};

}  // namespace wideload::runtime
