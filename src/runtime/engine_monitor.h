// What an engine has done since its start, in bounded memory, for people who watch it and for
// metrics: sums by layer, rank and expert, and what the slots hold. Noted by the engine's thread;
// any thread reads.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <vector>

#include "eplb/placement/placement.h"
#include "rebalance/online_balancer.h"
#include "runtime/engine.h"
#include "runtime/exchange_figures.h"
#include "statistics/run_series.h"

namespace wideload::runtime {

// Of a rank of the run, of all stages.
struct RankLife {
  int32_t host = 0;
  parallel::Coordinates place;
  std::chrono::steady_clock::time_point ended;  // its part of the last iteration; the start: none
};

// The course of the run. Layers are those with experts, in the order of `layers`.
struct EngineCourse {
  std::vector<int32_t> layers;  // model index of each
  int32_t num_ranks = 1;        // of a stage: each layer is computed by those of its own
  int32_t num_stages = 1;
  std::vector<int32_t> first_ranks;  // [layers]: of the stage that has the layer
  statistics::Stretch total;
  std::vector<statistics::Stretch> stretches;
  // [layers * ranks]: rows that each rank computed.
  std::vector<int64_t> computed_rows;
  // [ranks * ranks]: rows of the exchange that each rank sent to each, of all stages; empty when
  // there is none.
  std::vector<int64_t> sent_rows;
  // [hosts * hosts]: of them, from host to host; what stays on its rank is in own_rows alone.
  std::vector<int64_t> host_rows;
  int64_t own_rows = 0;
  int64_t row_bytes = 0;         // of one of them
  int64_t return_row_bytes = 0;  // of one of exchange.num_returns
  std::vector<RankLife> lives;   // [all ranks]
  // When all ranks were last known to live: an iteration ended, or there was none to compute.
  std::chrono::steady_clock::time_point seen;
  // [layers]: sum over iterations of (busiest - mean) / mean of these rows, and of mean / busiest.
  std::vector<double> imbalance_sums, balancedness_sums;
  // [layers]: slots that got an expert which their rank did not hold before.
  std::vector<int64_t> fetched_slots;
  ExchangeFigures exchange;
  rebalance::BalancerFigures balancer;
  int64_t changed_iteration = -1;                 // that the last change of placements began with
  GroupIteration last;                            // of all groups
  std::chrono::steady_clock::time_point now;      // when the last iteration ended
  std::chrono::steady_clock::time_point changed;  // when that change was taken
};

// Where the experts are, and how much they were wanted.
struct EngineExperts {
  int64_t generation = 0;  // of the placements; 0: as the run started
  int32_t num_experts = 0;
  int32_t num_ranks = 1;                    // that slots are divided among
  std::vector<int64_t> routed;              // [layers * experts]: (token, k) pairs
  std::vector<eplb::Placement> placements;  // [layers]
  std::vector<std::vector<int64_t>> since;  // [layers][slots]: iteration of the last change; or 0
};

class EngineMonitor {
 public:
  // Has the engine count what is routed. `engine` must outlive it; before the first Step.
  explicit EngineMonitor(Engine& engine);

  // After a Step that took so long; of one that computed nothing only that ranks live. Of the
  // engine's thread.
  void Note(double seconds);

  // Any thread.
  EngineCourse course() const;
  EngineExperts experts() const;

 private:
  void NoteLives();
  void NoteSentRows();
  void NoteRows(const statistics::IterationFigures& figures);
  void NotePlacements(const std::vector<eplb::Placement>& placements);

  Engine& engine_;
  int64_t num_noted_ = 0;      // iterations
  std::vector<int64_t> rows_;  // of one iteration [layers * ranks]
  mutable std::mutex mutex_;   // guards what follows
  statistics::RunSeries series_;
  EngineCourse course_;  // without what `series_` has
  EngineExperts experts_;
};

}  // namespace wideload::runtime
