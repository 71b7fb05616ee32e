// The online balancer of one engine: is told what every iteration routed, plans on a thread of its
// own, and says before each iteration what the slots hold from then on. Called by one thread; that
// thread is kept waiting only where a plan is late and options.is_waiting.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "rebalance/placement_change.h"
#include "rebalance/planner.h"

namespace wideload::rebalance {

// Since the start.
struct BalancerFigures {
  int64_t num_changes = 0;    // generations
  int64_t num_layers = 0;     // layers changed, over all changes
  int64_t fetched_slots = 0;  // slots whose expert their rank did not hold before
  int64_t num_late = 0;       // plans that missed their boundary and took a later one
  int64_t num_skipped = 0;    // iterations whose counts were dropped as the planner was behind
  int64_t planning_ns = 0;    // thread CPU time of the planner
};

// `later` and `earlier` are of the same balancer.
BalancerFigures operator-(const BalancerFigures& later, const BalancerFigures& earlier);

class OnlineBalancer {
 public:
  // `start` [MoE layers]: what the slots hold at first. Starts the planner's thread; none for
  // Mode::kOff, which never changes anything. Errors: kInvalid naming an option out of range, or
  // layers of different sizes; kResource when the thread cannot be started.
  OnlineBalancer(const OnlineOptions& options, std::vector<eplb::Placement> start);
  // Ends the thread after the plan that it is working on.
  ~OnlineBalancer();
  OnlineBalancer(const OnlineBalancer&) = delete;
  OnlineBalancer& operator=(const OnlineBalancer&) = delete;

  // What `iteration` routed, summed over ranks [MoE layers * experts]; in increasing order. At most
  // delay_iterations are kept until they are planned for: then the oldest is dropped, or, with
  // is_waiting, waited for. Errors: rethrows what ended the planner.
  void Observe(int64_t iteration, std::span<const int32_t> routed_counts, bool is_warmup);
  // Before each iteration: what the slots hold from it on, if that differs from before. The caller
  // carries it out. Errors: rethrows what ended the planner.
  std::optional<PlacementChange> ChangeFor(int64_t iteration);

  // The next iteration that is observed is planned for with every layer looked at
  // (IterationCounts::is_asked). Any thread.
  void PlanNow();

  // Since the start. Any thread.
  BalancerFigures figures() const;
  // What the slots hold after the last ChangeFor [MoE layers].
  const std::vector<eplb::Placement>& placements() const { return placements_; }

 private:
  struct Job {
    int64_t iteration = 0;
    bool is_warmup = false;
    bool is_asked = false;
    std::vector<int32_t> routed_counts;
  };
  struct Plan {
    int64_t due = 0;
    std::vector<LayerChange> layers;
  };
  void ThreadMain(trace::Track* track);
  bool TakeJob(Job& job);
  void KeepPlan(Plan plan);
  bool IsPlannedUntil(int64_t iteration) const;
  void Merge(std::vector<LayerChange> layers, std::vector<LayerChange>& into) const;

  OnlineOptions options_;
  std::vector<eplb::Placement> placements_;
  std::unique_ptr<Planner> planner_;  // used by its thread alone
  int64_t generation_ = 0;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable job_came_;
  std::condition_variable job_went_;
  std::deque<Job> jobs_;            // not begun; at most delay_iterations
  std::vector<Job> spare_jobs_;     // their memory, to be used again
  std::optional<int64_t> at_work_;  // the iteration that is planned for
  std::deque<Plan> plans_;          // not taken yet; at most delay_iterations + 1
  std::exception_ptr failure_;
  bool stop_ = false;
  bool is_asked_ = false;  // PlanNow, for the next job
  BalancerFigures figures_;
  std::jthread thread_;
};

}  // namespace wideload::rebalance
