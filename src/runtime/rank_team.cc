#include "runtime/rank_team.h"

#include <algorithm>

#include "base/error.h"
#include "compute/cuda/kernels.h"

namespace wideload::runtime {

namespace {

std::unique_ptr<exchange::DeviceRows> MakeDeviceRows(const exchange::ExchangeShape& shape,
                                                     const EngineOptions& options) {
  const std::vector<device::Device*> devices(static_cast<size_t>(shape.num_ranks), options.device);
  const auto copy = [kernels = options.device_kernels](device::Stream& stream,
                                                       const exchange::RowCopies& copies) {
    kernels->copy_rows(stream, {.from = copies.from,
                                .to = copies.to,
                                .row_bytes = copies.row_bytes,
                                .rows = copies.num_rows});
  };
  return std::make_unique<exchange::DeviceRows>(shape, devices, copy);
}

}  // namespace

RankTeam::RankTeam(const model::Model& model, const EngineOptions& options)
    : deadline_(options.deadline),
      layout_(options.layout),
      announcer_(options.layout.world() - options.layout.stage()),
      trace_(options.trace),
      placements_(model, options),
      group_(options.num_ranks(), {.total_threads = options.num_ranks() * options.threads_per_rank,
                                   .deadline = options.deadline}),
      ladder_(WaitLadder::For(options.num_ranks() * options.threads_per_rank + 1)) {
  ladder_.slice = std::min(ladder_.slice, deadline_);
  if (model.spec().moe.num_experts > 0) {
    const exchange::ExchangeShape shape = moe::MakeExchangeShape(
        model.spec().moe, placements_.layout(), compute::PrecisionOf(options.kernels));
    fabrics_ =
        std::make_unique<exchange::LocalFabrics>(options.num_ranks(), exchange::SegmentBytes(shape),
                                                 options.num_ranks() * options.threads_per_rank);
    if (options.device != nullptr) device_rows_ = MakeDeviceRows(shape, options);
  }
  for (int32_t r = 0; r < options.num_ranks(); ++r) {
    members_.push_back(std::make_unique<Member>());
    members_.back()->rank = std::make_unique<Rank>(
        model, MakeRankOptions(model, options, placements_, group_.rank(r),
                               fabrics_ ? &fabrics_->rank(r) : nullptr, device_rows_.get()));
  }
}

RankTeam::~RankTeam() {
  WIDELOAD_CHECK(Stop(), "rank {} is stuck; its thread still uses this memory", stuck_ranks_[0]);
}

void RankTeam::Start() {
  for (int32_t r = 0; r < static_cast<int32_t>(members_.size()); ++r)
    members_[static_cast<size_t>(r)]->thread =
        StartThread(fmt::format("rank {}", r), [this, r] { ThreadMain(r); });
  RunRound();
}

void RankTeam::Run(const TeamStep& step) {
  if (failure_) std::rethrow_exception(failure_);
  MicroBatch& first = *step.stages.front();
  first.announced = first.change ? placements_.Apply(*first.change) : nullptr;
  stages_.assign(step.stages.begin(), step.stages.end());
  RunRound(step);
}

void RankTeam::SetRecorder(statistics::Recorder* recorder) {
  for (const auto& member : members_) member->rank->SetRecorder(recorder);
}

void RankTeam::CountRouted(bool is_counting) {
  for (const auto& member : members_) member->rank->CountRouted(is_counting);
}

std::vector<trace::TrackData> RankTeam::ReadTrace() const {
  return trace_ != nullptr ? trace_->Read() : std::vector<trace::TrackData>();
}

bool RankTeam::Stop() {
  stop_.store(true, std::memory_order_release);
  round_.Increment();
  for (const int32_t r : stuck_ranks_) {
    std::jthread& thread = members_[static_cast<size_t>(r)]->thread;
    if (thread.joinable()) thread.detach();
  }
  for (const auto& member : members_)
    if (member->thread.joinable()) member->thread.join();
  return stuck_ranks_.empty();
}

// What the engine's thread does while ranks compute; whatever comes of it, they end their round.
std::exception_ptr RankTeam::Accompany(const TeamStep& step) {
  std::exception_ptr thrown;
  const auto call = [&](const std::function<void()>& work) {
    if (!work || thrown) return;
    try {
      work();
    } catch (...) {
      thrown = std::current_exception();
    }
  };
  call(step.note_allowed);
  if (notes_allowed_) allowed_.Publish(num_rounds_);
  call(step.meanwhile);
  return thrown;
}

void RankTeam::RunRound(const TeamStep& step) {
  if (failure_) std::rethrow_exception(failure_);
  stall_.reset();
  failing_.reset();
  const uint32_t all_done = ++num_rounds_ * static_cast<uint32_t>(members_.size());
  notes_allowed_ = step.note_allowed != nullptr;
  round_.Increment();
  const std::exception_ptr thrown = Accompany(step);
  const auto keep_waiting = [&] { return KeepWaiting(); };
  const bool all_ended =
      WaitFor(
          ending_, ladder_, [&](uint32_t ending) { return ending == num_rounds_; }, keep_waiting) &&
      WaitFor(
          done_, ladder_, [&](uint32_t done) { return done == all_done; }, keep_waiting);
  if (!all_ended) FindStuckRanks();
  failure_ = thrown ? thrown : FirstFailure();
  if (failure_) std::rethrow_exception(failure_);
}

// A rank that has ended needed something of every other in each layer, so what the others have left
// to do is as little as between two waits of the exchange: the same deadline holds.
bool RankTeam::KeepWaiting() {
  if (group_.Aborted()) {
    if (!failing_) failing_.emplace(group_.rank(0));
    return failing_->Elapsed() < kGrace;
  }
  const bool none_ended =
      done_.Load() == (num_rounds_ - 1) * static_cast<uint32_t>(members_.size());
  if (none_ended) return true;
  if (!stall_) stall_.emplace(group_.rank(0));
  return stall_->Elapsed() < deadline_;
}

void RankTeam::FindStuckRanks() {
  for (size_t r = 0; r < members_.size(); ++r)
    if (members_[r]->num_ended.load(std::memory_order_acquire) != num_rounds_)
      stuck_ranks_.push_back(static_cast<int32_t>(r));
}

// The rank that ended the group knows why; the others were told.
std::exception_ptr RankTeam::FirstFailure() const {
  std::exception_ptr any;
  const auto report = group_.Aborted();
  for (size_t r = 0; r < members_.size(); ++r) {
    if (members_[r]->num_ended.load(std::memory_order_acquire) != num_rounds_) continue;
    const std::exception_ptr& failure = members_[r]->failure;
    if (failure && (!any || (report && report->rank == static_cast<int>(r)))) any = failure;
  }
  if (any || stuck_ranks_.empty()) return any;
  return std::make_exception_ptr(
      Error(ErrorKind::kRunFailed,
            fmt::format("iteration {}: waited for the end of the iteration of rank {}: no answer "
                        "for {:.1f} s after the first rank had ended it",
                        stages_.empty() ? -1 : stages_.front()->iteration, stuck_ranks_[0],
                        std::chrono::duration<double>(deadline_).count())));
}

// What the rank does in the round.
RankStep RankTeam::StepOfRank(int32_t r, uint32_t round) {
  RankStep step = StepOf({.stages = stages_}, layout_, r);
  if (notes_allowed_) {
    step.allowed_word = &allowed_;
    step.allowed_value = round;
  }
  if (step.iteration >= 0)
    step.announced = stages_[static_cast<size_t>(r / layout_.stage())]->announced;
  if (r == announcer_) {
    step.ending_word = &ending_;
    step.ending_value = round;
  }
  return step;
}

void RankTeam::ThreadMain(int32_t r) {
  Member& member = *members_[static_cast<size_t>(r)];
  uint32_t seen = 0;
  while (true) {
    WaitFor(
        round_, ladder_, [&](uint32_t round) { return round != seen; }, [] { return true; });
    ++seen;
    if (stop_.load(std::memory_order_acquire)) return;
    try {
      if (stages_.empty())
        member.rank->Start();
      else
        member.rank->Run(StepOfRank(r, seen));
    } catch (const std::exception& e) {
      member.failure = std::current_exception();
      group_.Abort(r, e.what());
    }
    if (r == announcer_) ending_.Publish(seen);  // where it has not yet
    member.num_ended.fetch_add(1, std::memory_order_release);
    done_.Increment();
  }
}

}  // namespace wideload::runtime
