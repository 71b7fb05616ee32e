// The ranks of an engine as processes, seen from rank 0: it computes its own part of each plan and
// tells the others theirs. Used by the engine's thread, which is rank 0's thread.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "exchange/fabric.h"
#include "model/model.h"
#include "runtime/context_caches.h"
#include "runtime/engine_options.h"
#include "runtime/processes/message_channel.h"
#include "runtime/processes/step_answer.h"
#include "runtime/processes/step_order.h"
#include "runtime/rank.h"
#include "runtime/side_thread.h"

namespace wideload::runtime {

// How a rank that is a process reaches the others. All of the same rank; they outlive its team or
// server.
struct RankLinks {
  comm::Communicator* group = nullptr;
  exchange::Fabric* exchange = nullptr;  // of ExchangeSegmentBytes; null when there are no experts
  exchange::Fabric* orders = nullptr;    // of MessageChannel::SegmentBytes
  std::vector<int> host_of_rank = {};    // comm::Hosts'; empty: all are on one
  // Of the other ranks: the signal that has asked this process to end, or 0. May be empty.
  std::function<int()> pending_signal = {};
  // Of rank 0: told when another rank says that a signal has asked it to end. May be empty.
  std::function<void(int)> on_signal = {};
  // Of a generation server: the caches from which prompts are fetched; null: there are none.
  ContextCaches* contexts = nullptr;
  // Told what has ended this rank, before its memory is given back. May be empty.
  std::function<void(const std::exception&)> on_failure = {};
};

// ContextCaches::Fetch of links.contexts on a rank; others see that it lives while it waits for
// what it has asked for.
FetchResult FetchPart(const RankLinks& links, const CachedSequence& from, const CachedPart& to,
                      int64_t first_block);

// 0 when the model has no experts. Errors: as MakeMoeLayout.
int64_t ExchangeSegmentBytes(const model::Model& model, const EngineOptions& options);

class ProcessTeam {
 public:
  // `model` and `links` must outlive the team. Errors: kInvalid for a layout that does not fit.
  ProcessTeam(const model::Model& model, const EngineOptions& options, const RankLinks& links);
  ~ProcessTeam();
  ProcessTeam(const ProcessTeam&) = delete;
  ProcessTeam& operator=(const ProcessTeam&) = delete;

  // Returns when every rank is up. Errors: comm::PeerLost; what ended rank 0.
  void Start();
  // Every rank carries out its part of the step; returns when all have. Errors: kInvalid for a
  // change of placements that does not fit: nothing has happened. What ended rank 0, comm::PeerLost
  // with what ended another rank; the same again at every later call.
  void Run(const TeamStep& step);
  // Tells the other ranks that no plan follows, unless the group has ended. Always true: a rank
  // that does not answer is the group's matter.
  bool Stop();
  // While the ranks have nothing to do. Errors: comm::PeerLost when one has died or ended the
  // group, now and at every later call of Run.
  void CheckLives();

  std::span<const int32_t> stuck_ranks() const { return {}; }
  // Of rank r in the last Run; valid until the next.
  RankResult result(size_t r) const;
  // Null: it is not in this process's reach.
  const kv::PagedCache* cache(size_t r, int32_t micro_batch) const {
    return r == 0 ? &rank_->cache(micro_batch) : nullptr;
  }
  // CopySequence between iterations, each rank of the group of `to` its part, from a server of
  // links.contexts. Where one of them cannot, the result has its error when all have ended, and
  // blocks of `to` may have been written. Errors: as Run.
  FetchResult Fetch(const CachedSequence& from, const CachedSequence& to, int64_t first_block);
  // As those of RankTeam.
  void SetRecorder(statistics::Recorder* recorder);
  // Likewise.
  void CountRouted(bool is_counting);
  // Likewise.
  void Forget(RequestId id);
  // What options.trace holds here and, unless the group has ended, on the other ranks. Errors: as
  // Run.
  std::vector<trace::TrackData> ReadTrace();
  size_t size() const { return peers_.size() + 1; }

 private:
  struct Peer {  // a rank other than 0
    OrderWriter orders;
    AnswerReader answer;
    std::chrono::steady_clock::time_point ended;  // when it came
  };
  int PeerRank(const Peer& peer) const { return static_cast<int>(&peer - peers_.data()) + 1; }
  void RunAll(const TeamStep& step, const moe::SharedPlacements& announced);
  StepHead HeadOf(const TeamStep& step, const RankStep& part, int rank) const;
  void TakeAnswer(Peer& peer, const TeamStep& step);
  void EndGroup(const std::exception& failure);

  const trace::Trace* trace_;  // null: nothing is traced
  PlacementState placements_;
  RankLinks links_;
  parallel::Layout layout_;
  AnswerShape answers_;
  MessageChannel channel_;
  SideThread beside_{"beside 0"};  // for what goes on while rank 0 computes
  std::unique_ptr<Rank> rank_;
  std::vector<Peer> peers_;
  std::vector<std::byte> bytes_;
  statistics::Recorder* recorder_ = nullptr;
  bool counts_are_wanted_ = false;  // by others than the recorder
  std::exception_ptr failure_;
  bool is_running_ = false;  // the others wait for orders
};

}  // namespace wideload::runtime
