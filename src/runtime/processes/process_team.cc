#include "runtime/processes/process_team.h"

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
      tensor_size_(options.layout.tp),
      answers_{.vocab_size = model.spec().vocab_size,
               .num_moe_layers = static_cast<size_t>(model.spec().moe.num_layers()),
               .num_experts = static_cast<size_t>(model.spec().moe.num_experts),
               .num_ranks = static_cast<size_t>(options.num_ranks())},
      channel_(*links.orders, *links.group),
      rank_(std::make_unique<Rank>(
          model, MakeRankOptions(options, placements_, *links.group, links.exchange))),
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
  const moe::SharedPlacements announced =
      step.change != nullptr ? placements_.Apply(*step.change) : nullptr;
  try {
    RunAll(step, announced);
  } catch (const std::exception& failure) {
    EndGroup(failure);
    throw;
  }
}

void ProcessTeam::RunAll(const TeamStep& step, const moe::SharedPlacements& announced) {
  const StepPlan& plan = step.plan;
  const StepHead head{.iteration = step.iteration,
                      .most_tokens = step.most_tokens(),
                      .count_routed = counts_are_wanted_ ||
                                      (recorder_ != nullptr && recorder_->Wants(step.iteration)),
                      .change = step.change};
  for (Peer& peer : peers_) {
    const int r = PeerRank(peer);
    peer.orders.WriteStep(head, EntriesOf(plan, r), bytes_);
    channel_.Send(r, bytes_);
  }
  rank_->Run({.entries = plan.groups[0],
              .iteration = step.iteration,
              .most_tokens = head.most_tokens,
              .announced = announced});
  for (Peer& peer : peers_) TakeAnswer(peer, plan, head);
}

void ProcessTeam::TakeAnswer(Peer& peer, const StepPlan& plan, const StepHead& head) {
  const int r = PeerRank(peer);
  const std::span<const std::byte> bytes =
      channel_.Receive(r, MessageChannel::Patience::kDeadline, "the outputs of the iteration");
  // Of a group its first rank has the outputs.
  peer.answer.Read(
      bytes,
      {.entries = r % tensor_size_ == 0 ? EntriesOf(plan, r) : std::span<const PlanEntry>(),
       .count_routed = head.count_routed},
      answers_);
  const AnswerExtras& extras = peer.answer.extras();
  if (extras.signal != 0 && links_.on_signal) links_.on_signal(extras.signal);
  if (recorder_ != nullptr)
    recorder_->RecordIteration(EpRank(r), head.iteration, extras.routed_counts);
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

std::span<const PlanEntry> ProcessTeam::EntriesOf(const StepPlan& plan, int rank) const {
  return plan.groups[static_cast<size_t>(rank / tensor_size_)];
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
    } catch (const std::exception&) {  // the others find out by themselves, at the deadline
    }
  }
  return true;
}

RankResult ProcessTeam::result(size_t r) const {
  return r == 0 ? rank_->result() : peers_[r - 1].answer.result();
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
