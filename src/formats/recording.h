// What a run recorded, whatever engine wrote it: loads per expert, batch by batch where the file
// has batches, and what the file tells of the run. Plain values; thread-safe when not changed.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/engine.h"
#include "formats/number_array.h"
#include "statistics/expert_statistics.h"
#include "statistics/load_files.h"

namespace wideload::formats {

// Of an expert in one step; sums of such loads stay exact enough to compare.
inline constexpr double kMaxLoad = 1e30;

// What a batch computed: prompts, answers, or some of both.
enum class Phase { kUnknown, kPrefill, kDecode, kMixed };
// "unknown", "prefill", "decode", "mixed".
std::string_view PhaseName(Phase phase);
// Errors: kInvalid naming `flag`, with the names there are: prefill, decode, mixed.
Phase ParsePhase(const std::string& name, const std::string& flag);

// layer of the model (or row of the file) -> expert of each slot, as the run placed them
using SlotExperts = std::map<int32_t, std::vector<int32_t>>;

struct Recording {
  std::string source;  // the path
  std::string format;  // "SGLang's per_pass dump"
  std::optional<Engine> engine = {};
  int32_t ep_size = 0;               // ranks of the run; 0: the file does not tell
  int32_t top_k = 0;                 // experts per token; 0: the file does not tell
  statistics::LoadTable loads = {};  // per expert
  // Per slot, as counted, with the same layers and batches; of engines that count slots.
  std::optional<statistics::LoadTable> slot_loads = {};
  SlotExperts slot_expert = {};         // of the last batch; empty: not told
  std::vector<int64_t> steps = {};      // what the file calls its batches; empty: not told
  std::vector<Phase> phases = {};       // of each batch; empty: not told
  std::vector<std::string> notes = {};  // what was assumed or left out, for the reader

  size_t num_batches() const {
    return loads.batches.empty() ? 1 : loads.batches.begin()->second.size();
  }
};

// A table of more numbers is not made of a file that holds fewer.
inline constexpr int64_t kMaxTableNumbers = int64_t{1} << 27;

// For files whose rows are layers 0, 1, ... of the model, with rows for those that `layers` lacks.
// Errors: kResource when [steps, layers, columns] would be more than kMaxTableNumbers.
void CheckFilledTable(size_t num_steps, int32_t last_layer, int64_t num_columns);
// The same for what is there by layer.
template <class T>
void CheckFilledTable(size_t num_steps, const std::map<int32_t, T>& layers, int64_t num_columns) {
  if (!layers.empty()) CheckFilledTable(num_steps, layers.rbegin()->first, num_columns);
}

// Adds a batch [experts] to a layer of the table, its sum included.
void AddBatch(statistics::LoadTable& table, int32_t layer, std::vector<double> batch);

// [layers, columns] or [steps, layers, columns] as a table; the layers are numbered from 0. A rank
// of 3 gives batches. Errors: kInvalid prefixed by `where`: other ranks, no layer or column, too
// many, values that are negative or not finite.
statistics::LoadTable TableOfArray(const NumberArray& array, const std::string& where);

// Counts per expert of a recording that counted slots: those of an expert's slots added up. Sets
// loads, slot_loads and slot_expert. `slot_expert` may name layers by the rows' order (0, 1, ..)
// when the recording does. Errors: kInvalid naming `source`, layer, found and allowed: another
// number of slots, layers that it does not place.
void TakeSlots(const SlotExperts& slot_expert, const std::string& source, Recording& recording);

// Batches in which no layer has any load are taken out and counted; at least one stays. Returns how
// many went.
int64_t DropEmptyBatches(Recording& recording);
// Keeps the batches of one phase. Errors: kInvalid naming `flag` when the file does not tell phases
// or has none of it.
void KeepPhase(Phase phase, const std::string& flag, Recording& recording);

// The recording's counts as statistics of one rank: batches are iterations. Shares (values that are
// no integers) are scaled to kShareTokens a layer and batch.
inline constexpr double kShareTokens = 1e6;
// Errors: none; a table without batches is one iteration.
statistics::ExpertStatistics StatisticsOf(const Recording& recording,
                                          const statistics::LoadTable& table);
// Whether a table holds numbers that are no counts.
bool HoldsShares(const statistics::LoadTable& table);

}  // namespace wideload::formats
