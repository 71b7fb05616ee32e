#include "rebalance/online_balancer.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/thread_pool.h"
#include "eplb/placement/even_split.h"

namespace wideload::rebalance {
namespace {

void CheckStart(const OnlineOptions& options, const std::vector<eplb::Placement>& start) {
  if (options.delay_iterations < 1)
    Throw(ErrorKind::kInvalid, "online balancer: delay_iterations is {}; it must be 1 or more",
          options.delay_iterations);
  for (size_t layer = 0; layer < start.size(); ++layer) {
    const eplb::Placement& placement = start[layer];
    eplb::ValidatePlacement(placement, fmt::format("online balancer: MoE layer {}", layer));
    if (placement.num_experts != start[0].num_experts ||
        placement.num_slots() != start[0].num_slots() || placement.num_ranks != start[0].num_ranks)
      Throw(ErrorKind::kInvalid,
            "online balancer: MoE layer {} has {} experts in {} slots on {} ranks, the first one "
            "{} in {} on {}; all must be alike",
            layer, placement.num_experts, placement.num_slots(), placement.num_ranks,
            start[0].num_experts, start[0].num_slots(), start[0].num_ranks);
  }
}

}  // namespace

BalancerFigures operator-(const BalancerFigures& later, const BalancerFigures& earlier) {
  return {.num_changes = later.num_changes - earlier.num_changes,
          .num_layers = later.num_layers - earlier.num_layers,
          .fetched_slots = later.fetched_slots - earlier.fetched_slots,
          .num_late = later.num_late - earlier.num_late,
          .num_skipped = later.num_skipped - earlier.num_skipped,
          .planning_ns = later.planning_ns - earlier.planning_ns};
}

OnlineBalancer::OnlineBalancer(const OnlineOptions& options, std::vector<eplb::Placement> start)
    : options_(options), placements_(std::move(start)) {
  CheckStart(options_, placements_);
  if (placements_.empty()) return;
  planner_ = MakePlanner(options_, placements_);
  if (!planner_) return;
  trace::Track* const track =
      options_.trace != nullptr ? &options_.trace->AddTrack(-1, "planner") : nullptr;
  thread_ = StartThread("balancer", [this, track] { ThreadMain(track); });
}

OnlineBalancer::~OnlineBalancer() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  job_came_.notify_one();
}

void OnlineBalancer::Observe(int64_t iteration, std::span<const int32_t> routed_counts,
                             bool is_warmup) {
  if (!planner_) return;
  const size_t expected = placements_.size() * static_cast<size_t>(placements_[0].num_experts);
  WIDELOAD_CHECK(routed_counts.size() == expected, "{} counts; {} per iteration",
                 routed_counts.size(), expected);
  std::unique_lock lock(mutex_);
  const auto is_full = [this] { return std::ssize(jobs_) >= options_.delay_iterations; };
  if (options_.is_waiting) job_went_.wait(lock, [&] { return !is_full() || failure_; });
  if (failure_) std::rethrow_exception(failure_);
  if (is_full()) {
    is_asked_ |= jobs_.front().is_asked;
    spare_jobs_.push_back(std::move(jobs_.front()));
    jobs_.pop_front();
    ++figures_.num_skipped;
  }
  Job job;
  if (!spare_jobs_.empty()) {
    job = std::move(spare_jobs_.back());
    spare_jobs_.pop_back();
  }
  job.iteration = iteration;
  job.is_warmup = is_warmup;
  job.is_asked = std::exchange(is_asked_, false);
  job.routed_counts.assign(routed_counts.begin(), routed_counts.end());
  jobs_.push_back(std::move(job));
  lock.unlock();
  job_came_.notify_one();
}

bool OnlineBalancer::IsPlannedUntil(int64_t iteration) const {
  const bool is_at_work = at_work_ && *at_work_ <= iteration;
  return !is_at_work && (jobs_.empty() || jobs_.front().iteration > iteration);
}

std::optional<PlacementChange> OnlineBalancer::ChangeFor(int64_t iteration) {
  if (!planner_) return std::nullopt;
  PlacementChange change;
  std::unique_lock lock(mutex_);
  if (options_.is_waiting)
    job_went_.wait(
        lock, [&] { return failure_ || IsPlannedUntil(iteration - options_.delay_iterations); });
  if (failure_) std::rethrow_exception(failure_);
  while (!plans_.empty() && plans_.front().due <= iteration) {
    if (plans_.front().due < iteration) ++figures_.num_late;
    Merge(std::move(plans_.front().layers), change.layers);
    plans_.pop_front();
  }
  if (change.layers.empty()) return std::nullopt;
  change.generation = ++generation_;
  ++figures_.num_changes;
  figures_.num_layers += std::ssize(change.layers);
  for (const LayerChange& layer : change.layers) {
    eplb::Placement& now = placements_[static_cast<size_t>(layer.moe_layer)];
    figures_.fetched_slots += eplb::CountFetchedSlots(now, layer.placement);
    now = layer.placement;
  }
  return change;
}

// Later placements of a layer replace earlier ones.
void OnlineBalancer::Merge(std::vector<LayerChange> layers, std::vector<LayerChange>& into) const {
  for (LayerChange& layer : layers) {
    const auto at = std::lower_bound(
        into.begin(), into.end(), layer.moe_layer,
        [](const LayerChange& a, int32_t moe_layer) { return a.moe_layer < moe_layer; });
    if (at != into.end() && at->moe_layer == layer.moe_layer) {
      *at = std::move(layer);
    } else {
      into.insert(at, std::move(layer));
    }
  }
}

void OnlineBalancer::PlanNow() {
  const std::lock_guard lock(mutex_);
  is_asked_ = true;
}

BalancerFigures OnlineBalancer::figures() const {
  const std::lock_guard lock(mutex_);
  return figures_;
}

bool OnlineBalancer::TakeJob(Job& job) {
  std::unique_lock lock(mutex_);
  job_came_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
  if (stop_) return false;
  job = std::move(jobs_.front());
  jobs_.pop_front();
  at_work_ = job.iteration;
  lock.unlock();
  job_went_.notify_one();
  return true;
}

void OnlineBalancer::KeepPlan(Plan plan) {
  if (plan.layers.empty()) return;
  if (std::ssize(plans_) <= options_.delay_iterations) {
    plans_.push_back(std::move(plan));
    return;
  }
  // Nobody asks for changes: one plan for all of them, due with the newest.
  plans_.back().due = plan.due;
  Merge(std::move(plan.layers), plans_.back().layers);
}

void OnlineBalancer::ThreadMain(trace::Track* track) {
  const trace::OnTrack on(track);
  Job job;
  while (TakeJob(job)) {
    Plan plan{.due = job.iteration + options_.delay_iterations, .layers = {}};
    std::exception_ptr failure;
    try {
      trace::SetIteration(job.iteration);
      const trace::Span span(trace::SpanKind::kPlan);
      plan.layers = planner_->Plan({job.iteration, job.is_warmup, job.routed_counts, job.is_asked});
    } catch (...) {
      failure = std::current_exception();
    }
    {
      const std::lock_guard lock(mutex_);
      KeepPlan(std::move(plan));
      spare_jobs_.push_back(std::move(job));
      at_work_.reset();
      failure_ = failure;
      figures_.planning_ns = ThreadCpuNs();
    }
    job_went_.notify_one();
    if (failure) return;
  }
}

}  // namespace wideload::rebalance
