#include "formats/recording.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "statistics/eplb_yaml.h"

namespace wideload::formats {
namespace {

using statistics::LoadTable;

constexpr std::array<std::string_view, 4> kPhases = {"unknown", "prefill", "decode", "mixed"};

LoadTable SumSlots(const LoadTable& slots, const SlotExperts& slot_expert,
                   const std::string& source) {
  LoadTable table;
  for (const auto& [layer, experts] : slot_expert)
    for (const int32_t expert : experts)
      table.num_experts = std::max(table.num_experts, expert + 1);
  const auto sum = [&](int32_t layer, const std::vector<double>& loads) {
    const auto found = slot_expert.find(layer);
    if (found == slot_expert.end())
      Throw(ErrorKind::kInvalid, "{}: has no layer {}, which the loads have", source, layer);
    if (found->second.size() != loads.size())
      Throw(ErrorKind::kInvalid,
            "{}: layer {} has {} slots; the loads count {}, so it must be that", source, layer,
            found->second.size(), loads.size());
    std::vector<double> result(static_cast<size_t>(table.num_experts), 0);
    for (size_t s = 0; s < loads.size(); ++s)
      result[static_cast<size_t>(found->second[s])] += loads[s];
    return result;
  };
  for (const auto& [layer, loads] : slots.layers) table.layers[layer] = sum(layer, loads);
  for (const auto& [layer, batches] : slots.batches)
    for (const std::vector<double>& batch : batches)
      table.batches[layer].push_back(sum(layer, batch));
  return table;
}

void KeepBatches(const std::vector<bool>& keep, LoadTable& table) {
  for (auto& [layer, batches] : table.batches) {
    std::vector<std::vector<double>> kept;
    std::vector<double> total(static_cast<size_t>(table.num_experts), 0);
    for (size_t i = 0; i < batches.size(); ++i) {
      if (!keep[i]) continue;
      for (size_t e = 0; e < total.size(); ++e) total[e] += batches[i][e];
      kept.push_back(std::move(batches[i]));
    }
    batches = std::move(kept);
    table.layers[layer] = std::move(total);
  }
}

void KeepBatches(const std::vector<bool>& keep, Recording& recording) {
  KeepBatches(keep, recording.loads);
  if (recording.slot_loads) KeepBatches(keep, *recording.slot_loads);
  const auto filter = [&](auto& values) {
    if (values.empty()) return;
    size_t next = 0;
    for (size_t i = 0; i < keep.size(); ++i)
      if (keep[i]) values[next++] = values[i];
    values.resize(next);
  };
  filter(recording.steps);
  filter(recording.phases);
}

}  // namespace

std::string_view PhaseName(Phase phase) { return kPhases[static_cast<size_t>(phase)]; }

Phase ParsePhase(const std::string& name, const std::string& flag) {
  for (size_t i = 1; i < kPhases.size(); ++i)
    if (kPhases[i] == name) return static_cast<Phase>(i);
  Throw(ErrorKind::kInvalid, "{} is \"{}\"; allowed: prefill, decode, mixed", flag, name);
}

void CheckFilledTable(size_t num_steps, int32_t last_layer, int64_t num_columns) {
  const int64_t rows = int64_t{last_layer} + 1;
  const auto most_steps = static_cast<size_t>(kMaxTableNumbers / (rows * num_columns));
  if (num_steps > most_steps)
    Throw(ErrorKind::kResource,
          "rows for layers 0 to {} with {} numbers each, {} times, are more than {} numbers; "
          "--layers can number the layers that are there from 0",
          last_layer, num_columns, num_steps, kMaxTableNumbers);
}

void AddBatch(LoadTable& table, int32_t layer, std::vector<double> batch) {
  std::vector<double>& sum = table.layers[layer];
  sum.resize(batch.size(), 0);
  for (size_t e = 0; e < batch.size(); ++e) sum[e] += batch[e];
  table.num_experts = static_cast<int32_t>(batch.size());
  table.batches[layer].push_back(std::move(batch));
}

LoadTable TableOfArray(const NumberArray& array, const std::string& where) {
  const bool has_steps = array.rank() == 3;
  const size_t first = has_steps ? 1 : 0;
  if ((array.rank() != 2 && !has_steps) || array.values.empty() ||
      array.shape[first] > statistics::kMaxEplbLayers ||
      array.shape[first + 1] > statistics::kMaxTableExperts)
    Throw(ErrorKind::kInvalid,
          "{} is {}; it must be [layers, experts] or [steps, layers, experts] of at most {} layers "
          "and {} experts",
          where, ShapeText(array.shape), statistics::kMaxEplbLayers, statistics::kMaxTableExperts);
  for (size_t i = 0; i < array.values.size(); ++i)
    if (!(array.values[i] >= 0 && array.values[i] <= kMaxLoad))
      Throw(ErrorKind::kInvalid, "{}{} is {}; it must be finite, at least 0 and at most {}", where,
            IndexText(array.shape, static_cast<int64_t>(i)), array.values[i], kMaxLoad);
  const int64_t layers = array.shape[first];
  const int64_t experts = array.shape[first + 1];
  LoadTable table{.num_experts = static_cast<int32_t>(experts)};
  for (int64_t row = 0; row < std::ssize(array.values) / experts; ++row) {
    const auto begin = array.values.begin() + row * experts;
    std::vector<double> loads(begin, begin + experts);
    const auto layer = static_cast<int32_t>(row % layers);
    if (has_steps)
      AddBatch(table, layer, std::move(loads));
    else
      table.layers[layer] = std::move(loads);
  }
  return table;
}

void TakeSlots(const SlotExperts& slot_expert, const std::string& source, Recording& recording) {
  LoadTable slots = recording.slot_loads ? std::move(*recording.slot_loads) : recording.loads;
  recording.loads = SumSlots(slots, slot_expert, source);
  recording.slot_loads = std::move(slots);
  recording.slot_expert = slot_expert;
}

int64_t DropEmptyBatches(Recording& recording) {
  if (recording.loads.batches.empty()) return 0;
  std::vector<bool> keep(recording.num_batches(), false);
  for (const auto& [layer, batches] : recording.loads.batches)
    for (size_t i = 0; i < keep.size(); ++i)
      keep[i] = keep[i] || std::any_of(batches[i].begin(), batches[i].end(),
                                       [](double load) { return load > 0; });
  const auto dropped = std::count(keep.begin(), keep.end(), false);
  if (dropped == 0 || dropped == std::ssize(keep)) return 0;
  KeepBatches(keep, recording);
  return dropped;
}

void KeepPhase(Phase phase, const std::string& flag, Recording& recording) {
  std::vector<bool> keep;
  for (const Phase of_batch : recording.phases) keep.push_back(of_batch == phase);
  if (std::find(keep.begin(), keep.end(), true) == keep.end())
    Throw(ErrorKind::kInvalid, "{} is {}; {} {}", flag, PhaseName(phase), recording.source,
          recording.phases.empty() ? "does not tell phases (SGLang's per_token dumps do)"
                                   : "has no batch of it");
  KeepBatches(keep, recording);
}

bool HoldsShares(const LoadTable& table) {
  for (const auto& [layer, loads] : table.layers)
    for (const double load : loads)
      if (load != std::floor(load) || load > 9007199254740992.0) return true;
  return false;
}

statistics::ExpertStatistics StatisticsOf(const Recording& recording, const LoadTable& table) {
  const bool shares = HoldsShares(table);
  statistics::ExpertStatistics result{
      .num_experts = table.num_experts,
      .experts_per_token = std::max(recording.top_k, 1),
      .ep_size = std::max(recording.ep_size, 1),
      .iter_start = 0,
      .num_iterations = static_cast<int64_t>(recording.num_batches())};
  for (const auto& [layer, loads] : table.layers) result.layers.push_back(layer);
  result.counts.reserve(static_cast<size_t>(result.num_iterations) * table.layers.size() *
                        static_cast<size_t>(table.num_experts));
  for (size_t i = 0; i < recording.num_batches(); ++i)
    for (const auto& [layer, total] : table.layers) {
      const std::vector<double>& loads = table.batches.empty() ? total : table.batches.at(layer)[i];
      double sum = 0;
      for (const double load : loads) sum += load;
      const double scale = shares && sum > 0 ? kShareTokens / sum : 1;
      for (const double load : loads)
        result.counts.push_back(static_cast<int64_t>(std::llround(load * scale)));
    }
  return result;
}

}  // namespace wideload::formats
