// Folders of expert statistics in TensorRT-LLM's format: meta_info.json and one
// rank{r}.safetensors per rank with tensors "{iteration}_{layer}". Not thread-safe per folder.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "statistics/expert_statistics.h"
#include "tensor/safetensors.h"

namespace wideload::statistics {

// Which iterations are read, and whether ranks stay apart.
struct ReadStatisticsOptions {
  std::optional<int64_t> iter_start = {};  // first iteration wanted; default: the first recorded
  std::optional<int64_t> iter_stop = {};   // one past the last wanted; default: all recorded
  bool sum_ranks = true;
};

// Reads `folder`. Errors, naming file and tensor, found and allowed: kNotFound for a missing
// meta_info.json or rank file (0..n-1, n the ep_size of meta_info.json if it has one; stages have
// as many ranks each); kCorrupt for names that are not "{iteration}_{layer}", iterations or pairs
// of the window that a rank lacks, ranks that share some layers but not all (those of another
// pipeline stage share none); kInvalid for another dtype than I64, I32, U64 and U32, another length
// than num_experts, negative counts, sums beyond int64, a window outside the recorded one.
ExpertStatistics ReadStatistics(const std::string& folder, const ReadStatisticsOptions& options);

// The same from files already open: `meta_json` is the text of meta_info.json, files [ep_size].
ExpertStatistics ParseStatistics(std::string_view meta_json, const std::string& meta_path,
                                 std::span<const SafetensorsFile> files,
                                 const ReadStatisticsOptions& options);

// "rank3.safetensors"
std::string RankFileName(int64_t rank);
// The number that a name holds: a decimal without sign or leading zeros in [0, max], else -1.
int64_t ParseDecimalName(std::string_view text, int64_t max);

// What becomes of statistics that lie there already.
enum class ExistingFolder { kRefuse, kReplace };

// Errors, before any work is done: kInvalid when `folder` holds another run's files (unless
// replaced) or anything that is no statistics file, or its parent is missing or not writable.
void CheckStatisticsFolder(const std::string& folder, ExistingFolder existing);

// Writes one rank file per row of ranks, always counts per expert. The folder appears whole:
// written beside `folder` and renamed. Errors: those of CheckStatisticsFolder, kIo.
void WriteStatistics(const std::string& folder, const ExpertStatistics& statistics,
                     ExistingFolder existing);

}  // namespace wideload::statistics
