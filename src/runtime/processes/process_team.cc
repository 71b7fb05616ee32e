#include "runtime/processes/process_team.h"

#include <algorithm>

#include "base/error.h"
#include "comm/wait_guard.h"

namespace wideload::runtime {

int64_t ExchangeSegmentBytes(const model::Model& model, const EngineOptions& options) {
  const moe::MoeShape& shape = model.spec().moe;
  if (shape.num_experts == 0) return 0;
  return exchange::SegmentBytes(moe::MakeExchangeShape(shape, MakeMoeLayout(shape, options),
                                                       compute::PrecisionOf(options.kernels)));
}

ProcessTeam::ProcessTeam(const model::Model& model, const EngineOptions& options,
                         const RankLinks& links)
    : trace_(options.trace),
      placements_(model, options),
      links_(links),
      layout_(options.layout),
      answers_{.vocab_size = model.spec().vocab_size,
               .num_moe_layers = static_cast<size_t>(model.spec().moe.num_layers()),
               .num_experts = static_cast<size_t>(model.spec().moe.num_experts),
               .num_ranks = static_cast<size_t>(options.layout.stage())},
      channel_(*links.orders, *links.group),
      rank_(std::make_unique<Rank>(
          model, MakeRankOptions(model, options, placements_, *links.group, links.exchange))),
      peers_(static_cast<size_t>(links.group->size()) - 1) {
  WIDELOAD_CHECK(links.group->rank() == 0 && links.group->size() == options.num_ranks(),
                 "rank {} of {} leads {} ranks", links.group->rank(), links.group->size(),
                 options.num_ranks());
}

ProcessTeam::~ProcessTeam() { Stop(); }

void ProcessTeam::Start() {
  try {
    OrderWriter::Write(OrderKind::kStart, bytes_);
    for (const Peer& peer : peers_) channel_.Send(PeerRank(peer), bytes_);
    rank_->Start();
    links_.group->Barrier();
    is_running_ = true;
  } catch (const std::exception& failure) {
    EndGroup(failure);
    throw;
  }
}

void ProcessTeam::Run(const TeamStep& step) {
  if (failure_) std::rethrow_exception(failure_);
  const MicroBatch& first = *step.stages.front();
  const moe::SharedPlacements announced = first.change ? placements_.Apply(*first.change) : nullptr;
  if (step.note_allowed) step.note_allowed();  // the orders have it
  try {
    RunAll(step, announced);
  } catch (const std::exception& failure) {
    EndGroup(failure);
    throw;
  }
}

void ProcessTeam::RunAll(const TeamStep& step, const moe::SharedPlacements& announced) {
  for (Peer& peer : peers_) {
    const int r = PeerRank(peer);
    const RankStep part = StepOf(step, layout_, r);
    peer.orders.WriteStep(HeadOf(step, part, r), part.entries, bytes_);
    channel_.Send(r, bytes_);
  }
  RankStep own = StepOf(step, layout_, 0);
  own.announced = announced;
  if (step.meanwhile) beside_.Begin(step.meanwhile);
  try {
    rank_->Run(own);
  } catch (...) {
    beside_.Finish();
    throw;
  }
  beside_.Join();
  for (Peer& peer : peers_) TakeAnswer(peer, step);
}

StepHead ProcessTeam::HeadOf(const TeamStep& step, const RankStep& part, int rank) const {
  const MicroBatch& batch = *step.stages[static_cast<size_t>(rank / layout_.stage())];
  return {.iteration = part.iteration,
          .most_tokens = part.most_tokens,
          .micro_batch = part.micro_batch,
          .incoming_tokens = part.incoming_tokens,
          .count_routed =
              counts_are_wanted_ || (recorder_ != nullptr && recorder_->Wants(part.iteration)),
          .change = batch.change && !batch.is_empty() ? &*batch.change : nullptr};
}

void ProcessTeam::TakeAnswer(Peer& peer, const TeamStep& step) {
  const int r = PeerRank(peer);
  const RankStep part = StepOf(step, layout_, r);
  const StepHead head = HeadOf(step, part, r);
  const std::span<const std::byte> bytes =
      channel_.Receive(r, MessageChannel::Patience::kDeadline, "the outputs of the iteration");
  peer.answer.Read(bytes,
                   {.entries = HasOutputs(layout_, r) ? part.entries : std::span<const PlanEntry>(),
                    .count_routed = head.count_routed},
                   answers_);
  peer.ended = std::chrono::steady_clock::now();
  const AnswerExtras& extras = peer.answer.extras();
  if (extras.signal != 0 && links_.on_signal) links_.on_signal(extras.signal);
  if (recorder_ != nullptr)
    recorder_->RecordIteration(EpRank(r), head.iteration, extras.routed_counts);
}

FetchResult FetchPart(const RankLinks& links, const CachedSequence& from, const CachedPart& to,
                      int64_t first_block) {
  // It gets on: how long it waits is bounded there.
  return links.contexts->Fetch(from, to, first_block, [&](bool) {
    links.group->progress().fetch_add(1, std::memory_order_relaxed);
    links.group->Beat();
  });
}

FetchResult ProcessTeam::Fetch(const CachedSequence& from, const CachedSequence& to,
                               int64_t first_block) {
  if (failure_) std::rethrow_exception(failure_);
  const std::vector<int32_t> ranks = RanksOfGroup(layout_, to.group);
  FetchResult all;
  const auto add = [&](int rank, FetchResult found) {
    all.num_bytes += found.num_bytes;
    if (all.error.empty() && !found.error.empty())
      all.error = layout_.world() == 1 ? std::move(found.error)
                                       : fmt::format("rank {}: {}", rank, found.error);
  };
  try {
    WIDELOAD_CHECK(from.server >= 0, "prompts of this process for ranks that are others");
    OrderWriter::WriteFetch({.server = from.server,
                             .group = from.group,
                             .micro_batch = MicroBatchOf(layout_, to.group),
                             .first_block = first_block,
                             .from = from.tables,
                             .to = to.tables},
                            bytes_);
    for (const int32_t r : ranks)
      if (r > 0) channel_.Send(r, bytes_);
    if (ranks.front() == 0)
      add(0, FetchPart(links_, from,
                       {.part = to.parts.front(), .cache = *to.caches.front(), .tables = to.tables},
                       first_block));
    for (const int32_t r : ranks)
      if (r > 0)
        add(r, ReadFetchAnswer(channel_.Receive(r, MessageChannel::Patience::kDeadline,
                                                "the blocks of a computed prompt")));
  } catch (const std::exception& failure) {
    EndGroup(failure);
    throw;
  }
  return all;
}

std::vector<trace::TrackData> ProcessTeam::ReadTrace() {
  if (trace_ == nullptr) return {};
  std::vector<trace::TrackData> tracks = trace_->Read();
  if (!is_running_ || failure_) return tracks;
  try {
    OrderWriter::Write(OrderKind::kReadTrace, bytes_);
    for (const Peer& peer : peers_) channel_.Send(PeerRank(peer), bytes_);
    for (const Peer& peer : peers_)
      ReadTracks(channel_.Receive(PeerRank(peer), MessageChannel::Patience::kDeadline,
                                  "what it has traced"),
                 tracks);
  } catch (const std::exception& failure) {
    EndGroup(failure);
    throw;
  }
  return tracks;
}

void ProcessTeam::EndGroup(const std::exception& failure) {
  failure_ = std::current_exception();
  is_running_ = false;
  links_.group->Abort(failure.what());
  if (links_.on_failure) links_.on_failure(failure);
}

void ProcessTeam::CheckLives() {
  if (!is_running_ || peers_.empty()) return;
  try {
    comm::WaitGuard guard(*links_.group, PeerRank(peers_.front()));
    if (!guard.AllLive()) guard.ThrowPeerLost("a sign of life");
  } catch (const std::exception& failure) {
    EndGroup(failure);
    throw;
  }
}

bool ProcessTeam::Stop() {
  if (!std::exchange(is_running_, false)) return true;
  try {
    OrderWriter::Write(OrderKind::kStop, bytes_);
    for (const Peer& peer : peers_) channel_.Send(PeerRank(peer), bytes_);
  } catch (const std::exception& failure) {
    try {
      EndGroup(failure);
    } catch (const std::exception&) {
      return true;  // the others find out by themselves, at the deadline
    }
  }
  return true;
}

RankResult ProcessTeam::result(size_t r) const {
  if (r == 0) return rank_->result();
  RankResult result = peers_[r - 1].answer.result();
  result.ended = peers_[r - 1].ended;
  return result;
}

void ProcessTeam::SetRecorder(statistics::Recorder* recorder) {
  recorder_ = recorder;
  rank_->SetRecorder(recorder);
}

void ProcessTeam::CountRouted(bool is_counting) {
  counts_are_wanted_ = is_counting;
  rank_->CountRouted(is_counting);
}

void ProcessTeam::Forget(RequestId id) {
  for (Peer& peer : peers_) peer.orders.Forget(id);
}

}  // namespace wideload::runtime
