// The course of a run in bounded memory: what its iterations did, put together into ever longer
// stretches as it goes on. Pure values; not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace wideload::statistics {

// What one iteration did.
struct IterationFigures {
  int64_t iteration = 0;
  double seconds = 0;
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
  int64_t fetched_slots = 0;  // of the change of placements that it began with
};

// One or more iterations in a row.
struct Stretch {
  int64_t first_iteration = 0;
  int64_t num_iterations = 0;
  double seconds = 0;
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
  int64_t fetched_slots = 0;
  // (busiest - mean) / mean of the rows that ranks computed: sum over iterations and layers, and
  // the highest mean over layers of an iteration.
  double imbalance_sum = 0;
  double balancedness_sum = 0;  // mean / busiest of the same
  double highest_imbalance = 0;
  int64_t num_imbalances = 0;

  double MeanImbalance() const;     // 0 when there was nothing to balance
  double MeanBalancedness() const;  // 1 then
};

class RunSeries {
 public:
  // Never more stretches than that; at least 2.
  RunSeries(int32_t num_layers, int32_t num_ranks, size_t max_stretches = 512);

  // `computed_rows` [layers * ranks]: rows that each rank computed in each layer with experts.
  void Add(const IterationFigures& figures, std::span<const int64_t> computed_rows);

  const std::vector<Stretch>& stretches() const { return stretches_; }
  // All of them together.
  Stretch Total() const;
  // Rows over all iterations [layers * ranks].
  std::span<const int64_t> computed_rows() const { return computed_rows_; }
  int32_t num_layers() const { return num_layers_; }
  int32_t num_ranks() const { return num_ranks_; }

 private:
  void HalveStretches();

  int32_t num_layers_;
  int32_t num_ranks_;
  size_t max_stretches_;
  int64_t iterations_per_stretch_ = 1;
  std::vector<Stretch> stretches_;
  std::vector<int64_t> computed_rows_;
  std::vector<double> rank_rows_;  // [ranks] of one layer
};

}  // namespace wideload::statistics
