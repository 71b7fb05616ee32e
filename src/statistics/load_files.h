// Other files that tell which experts are busy: load tables (CSV) and token-level routing. Every
// id, count and shape is checked. Plain values; thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "eplb/placement/batch_loads.h"
#include "eplb/replay/layer_trace.h"
#include "statistics/expert_statistics.h"
#include "tensor/safetensors.h"

namespace wideload::statistics {

// How busy each expert of each layer was; any unit.
struct LoadTable {
  int32_t num_experts = 0;
  std::map<int32_t, std::vector<double>> layers = {};  // layer index -> [num_experts], >= 0
  // layer index -> the recorded batches that add up to it, oldest first; empty: not known
  std::map<int32_t, std::vector<std::vector<double>>> batches = {};
  bool operator==(const LoadTable&) const = default;
};

inline constexpr int32_t kMaxTableExperts = 1 << 16;  // ids of token-level routing have 16 bits

// The batches of a layer of the table, or the one that its total is.
eplb::BatchLoads LayerBatches(const LoadTable& table, int32_t layer);

// Lines of comma-separated numbers, all of one length. With a first line "layer,..." the first
// column is the layer index, else line i is layer i. Empty lines are skipped.
// Errors: kCorrupt and kInvalid with `source` and line: no number, another length, a layer twice.
LoadTable ParseLoadCsv(std::string_view text, const std::string& source);
// Text that ParseLoadCsv reads back; the totals, without batches.
std::string FormatLoadCsv(const LoadTable& table);

// Two layouts, told apart by tensor names: expert_ids [token, layer, k] with answer_tokens [answer]
// (one task of that name), or per task a tensor TASK [token, layer, k] with TASK_document_tokens
// [document]. Any integer dtype. num_experts 0: one more than the largest id.
// Errors, naming file and tensor: kInvalid for other dtypes and shapes, tasks of different layers
// or k, lengths that do not sum to the tokens, ids out of range; kNotFound for a missing partner.
eplb::RoutingTrace RoutingOfFile(const SafetensorsFile& file, int32_t num_experts = 0);
// The same of a file. Errors: also kNotFound and kIo.
eplb::RoutingTrace ReadRouting(const std::string& path, int32_t num_experts = 0);

// Tokens per expert of all tasks; layers 0..num_layers-1.
LoadTable RoutingLoads(const eplb::RoutingTrace& routing);

// Token after token, task after task, cut into iterations of one rank; the last may be shorter.
// tokens_per_iteration >= 1.
ExpertStatistics CutIntoIterations(const eplb::RoutingTrace& routing, int64_t tokens_per_iteration);

// Counts over all iterations and ranks.
LoadTable StatisticsLoads(const ExpertStatistics& statistics);

}  // namespace wideload::statistics
