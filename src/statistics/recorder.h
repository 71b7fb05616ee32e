// What the engine calls to record expert statistics. Each rank thread records into memory of its
// own, without locks; any thread may take the statistics at any time and sees the iterations that
// all ranks have ended.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "statistics/expert_statistics.h"
#include "statistics/statistics_folder.h"
#include "tensor/buffer.h"

namespace wideload::statistics {

// Iterations start <= i < stop.
struct IterationRange {
  int64_t start = 0;
  int64_t stop = std::numeric_limits<int64_t>::max();
  // Whether the iteration is one of these.
  bool Contains(int64_t iteration) const { return iteration >= start && iteration < stop; }
  bool operator==(const IterationRange&) const = default;
};
// "100-150". Errors: kInvalid naming `name` (a flag or variable) and the text.
IterationRange ParseIterationRange(const std::string& text, const std::string& name);

// Where and what to record: flags win over the environment variables EXPERT_STATISTIC_PATH and
// EXPERT_STATISTIC_ITER_RANGE; empty texts count as not given.
struct RecordSources {
  std::string flag_path = {};
  std::string flag_range = {};
  const char* environment_path = nullptr;
  const char* environment_range = nullptr;
};
// The choice among the sources.
struct RecordSettings {
  std::string path;
  IterationRange range;
};
// Nothing without a path. Errors: kInvalid for a range that cannot be read or has no path.
std::optional<RecordSettings> ChooseRecordSettings(const RecordSources& sources);

// What a recorder is for, and how much it may hold.
struct RecorderOptions {
  int32_t num_ranks = 1;
  // Of a pipeline, a divisor of num_ranks: in the statistics, ranks with the same place in their
  // stages are one, since each has layers of its own.
  int32_t num_stages = 1;
  std::vector<int32_t> layers = {};  // MoE layers of the model, ascending
  int32_t num_experts = 0;
  int32_t experts_per_token = 0;
  IterationRange range = {};
  // Of all ranks together; what comes after it is full is not recorded. Memory is taken as it is
  // needed, in blocks of about 4 MiB and outside Record.
  int64_t max_bytes = int64_t{1} << 30;
};

class Recorder {
 public:
  // A failed check: no rank, expert or layer, or layers that do not ascend.
  explicit Recorder(const RecorderOptions& options);

  // Whether this iteration is in the range; outside it a rank need not count.
  bool Wants(int64_t iteration) const { return options_.range.Contains(iteration); }

  // Adds the tokens that `rank` routed to each expert (not slot) in one chunk of the iteration.
  // counts [num_experts]. A layer that is not called counts 0. Called by the thread of `rank`
  // alone; allocates nothing, but after iterations that were left out. No-op outside the range.
  void Record(EpRank rank, int64_t iteration, LayerId layer, std::span<const int32_t> counts);

  // Every rank ends every iteration of the range, also one without tokens, in order. Those that all
  // ranks leave out, because the recorder is switched off meanwhile, are there without tokens.
  // Called by the thread of `rank`.
  void EndIteration(EpRank rank, int64_t iteration);

  // Record of every layer, then EndIteration: counts [layers * num_experts] of the whole iteration.
  void RecordIteration(EpRank rank, int64_t iteration, std::span<const int32_t> counts);

  // The iterations that all ranks have ended, counts per expert and rank; num_iterations may be 0.
  ExpertStatistics Statistics() const;
  // Iterations of the range that did not fit into max_bytes.
  int64_t num_dropped() const;

  // Writes Statistics(); also when the run ended before the range did.
  // Errors: kRunFailed when no iteration of the range was ended by all ranks; those of
  // WriteStatistics.
  void Write(const std::string& folder, ExistingFolder existing) const;

 private:
  struct alignas(64) Rank {
    std::vector<Buffer> blocks;  // sized once; filled front to back by the rank's thread
    int64_t first_iteration = -1;
    std::atomic<int64_t> num_ended{0};  // publishes what came before it
  };
  // The iteration's counts [layers, num_experts] of this rank, or null when memory is full.
  uint32_t* CountsOf(const Rank& rank, int64_t index) const;
  void OpenIteration(Rank& rank, int64_t iteration);
  void CountIteration(Rank& rank);

  RecorderOptions options_;
  std::vector<int32_t> layer_index_;  // layer of the model -> row, -1 for dense layers
  int64_t counts_per_iteration_ = 0;
  int64_t iterations_per_block_ = 0;
  int64_t max_iterations_ = 0;
  std::vector<std::unique_ptr<Rank>> ranks_;
};

}  // namespace wideload::statistics
