#include "statistics/report.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>

#include "base/error.h"
#include "eplb/policies/float_sum.h"
#include "eplb/split/water_filling.h"

namespace wideload::statistics {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::vector<int32_t> SlotsOf(const eplb::Placement& placement) {
  std::vector<int32_t> slots;
  for (const ExpertId expert : placement.slot_expert) slots.push_back(expert.value);
  return slots;
}

// How a layer's counts become columns.
struct Columns {
  std::vector<int32_t> slot_expert;  // empty: one slot per expert
  std::vector<float> replicas;       // [num_experts]
  size_t num_groups = 0;
  std::unique_ptr<eplb::WaterFilling> split = nullptr;  // null: even
};

size_t CheckedGroups(const ExpertStatistics& statistics, const ReportOptions& options) {
  const int32_t ranks = options.ep_size > 0 ? options.ep_size : statistics.ep_size;
  const int32_t slots = options.projection ? options.projection->num_slots : statistics.num_experts;
  if (options.per_expert) return static_cast<size_t>(slots);
  if (slots % ranks != 0)
    Throw(ErrorKind::kInvalid, "ep_size is {}{}; it must divide {} ({}){}", ranks,
          options.ep_size > 0 ? "" : " (the ranks that recorded)", slots,
          options.projection ? "num_slots" : "experts",
          options.ep_size > 0
              ? ""
              : fmt::format("; is rank {} or another one missing? --ep_size says how many ranks "
                            "the figures are for",
                            ranks));
  return static_cast<size_t>(ranks);
}

void CheckProjection(const ExpertStatistics& statistics, const ReportOptions& options) {
  if (!options.projection || options.projection->layers.empty()) return;
  if (options.projection->num_experts() != statistics.num_experts)
    Throw(ErrorKind::kInvalid,
          "{}: places {} experts; the statistics have {} (is it the file of another model?)",
          options.projection_source, options.projection->num_experts(), statistics.num_experts);
  for (const int32_t layer : statistics.layers)
    if (!options.projection->layers.contains(layer))
      Throw(ErrorKind::kInvalid,
            "{}: initial_global_assignments has no layer {}, which the statistics have",
            options.projection_source, layer);
}

Columns MakeColumns(const ExpertStatistics& statistics, const ReportOptions& options, int32_t layer,
                    size_t num_groups) {
  Columns columns{.slot_expert = {},
                  .replicas = std::vector<float>(static_cast<size_t>(statistics.num_experts), 0),
                  .num_groups = num_groups};
  if (!options.projection) return columns;
  const int32_t ranks = options.ep_size > 0 ? options.ep_size : statistics.ep_size;
  const EplbTarget target{.num_experts = statistics.num_experts, .ep_size = ranks};
  columns.slot_expert =
      options.projection->layers.empty()
          ? SlotsOf(LayerPlacement(*options.projection, layer, target, options.projection_source))
          : options.projection->layers.at(layer);
  for (const int32_t expert : columns.slot_expert)
    columns.replicas[static_cast<size_t>(expert)] += 1;
  if (options.optimal_split)
    columns.split = std::make_unique<eplb::WaterFilling>(
        LayerPlacement(*options.projection, layer, target, options.projection_source));
  return columns;
}

// The load of each rank, or of each slot when there are as many columns.
std::vector<float> OptimalLoads(std::span<const int64_t> counts, const Columns& columns) {
  columns.split->Solve(std::vector<double>(counts.begin(), counts.end()));
  const std::span<const double> slots = columns.split->slot_tokens();
  const std::span<const double> loads =
      columns.num_groups == slots.size() ? slots : columns.split->rank_tokens();
  return {loads.begin(), loads.end()};
}

// The load of each column in one iteration.
std::vector<float> ColumnLoads(std::span<const int64_t> counts, const Columns& columns) {
  std::vector<float> loads(columns.num_groups);
  if (columns.slot_expert.empty()) {
    const size_t size = counts.size() / columns.num_groups;
    for (size_t g = 0; g < loads.size(); ++g) {
      const auto group = counts.subspan(g * size, size);
      loads[g] = static_cast<float>(std::accumulate(group.begin(), group.end(), int64_t{0}));
    }
    return loads;
  }
  if (columns.split) return OptimalLoads(counts, columns);
  std::vector<float> slots;
  for (const int32_t expert : columns.slot_expert) {
    const auto e = static_cast<size_t>(expert);
    slots.push_back(static_cast<float>(counts[e]) / columns.replicas[e]);
  }
  const size_t size = slots.size() / columns.num_groups;
  for (size_t g = 0; g < loads.size(); ++g)
    loads[g] = eplb::PyTorchSum(std::span(slots).subspan(g * size, size));
  return loads;
}

float SampleStd(std::span<const float> values) {
  if (values.size() < 2) return std::numeric_limits<float>::quiet_NaN();
  const auto n = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0;
  for (const float value : values) squares += (value - mean) * (value - mean);
  return static_cast<float>(std::sqrt(squares / (n - 1)));
}

bool HasLoad(std::span<const int64_t> counts) {
  return std::any_of(counts.begin(), counts.end(), [](int64_t count) { return count > 0; });
}

// Over the iterations with load, whose imbalance ratios are added to `ratios`.
LoadFigures LayerFigures(const ExpertStatistics& statistics, size_t layer, const Columns& columns,
                         std::vector<double>& ratios) {
  std::vector<float> means;
  std::vector<float> stds;
  std::vector<float> ratio_column;
  std::vector<float> balanced;
  for (int64_t i = 0; i < statistics.num_iterations; ++i) {
    if (!HasLoad(statistics.Row(i, layer, 0))) continue;
    const std::vector<float> loads = ColumnLoads(statistics.Row(i, layer, 0), columns);
    const float mean = eplb::PyTorchMean(loads);
    const float max = *std::max_element(loads.begin(), loads.end());
    means.push_back(mean);
    stds.push_back(SampleStd(loads));
    ratio_column.push_back((max - mean) / mean);
    balanced.push_back(mean / max);
    ratios.push_back(ratio_column.back());
  }
  return {eplb::PyTorchMean(means), eplb::PyTorchMean(stds), eplb::PyTorchMean(ratio_column),
          eplb::PyTorchMean(balanced)};
}

// Counts the iterations that some or all of the layers with load left empty.
void CountEmpty(const ExpertStatistics& statistics, LoadReport& report) {
  for (int64_t i = 0; i < statistics.num_iterations; ++i) {
    size_t loaded = 0;
    for (size_t l = 0; l < statistics.layers.size(); ++l)
      loaded += HasLoad(statistics.Row(i, l, 0)) ? 1 : 0;
    if (loaded == 0)
      ++report.empty_iterations;
    else if (loaded < report.layers.size())
      ++report.partly_empty;
  }
}

template <class Member>
double Average(const std::vector<LoadFigures>& rows, Member member) {
  double sum = 0;
  int count = 0;
  for (const LoadFigures& row : rows) {
    if (std::isnan(row.*member)) continue;
    sum += row.*member;
    ++count;
  }
  return count == 0 ? kNaN : sum / count;
}

// True when every finite number ends in a zero behind its point.
bool AllEndInZero(const std::vector<std::string>& texts) {
  bool any = false;
  for (const std::string& text : texts) {
    if (text.find('.') == std::string::npos) continue;
    if (text.back() != '0') return false;
    any = true;
  }
  return any;
}

// A column of numbers as pandas shows it: six digits behind the point without common trailing
// zeros, or powers of ten when one is tiny, or long and huge.
std::vector<std::string> FormatColumn(const std::vector<double>& values) {
  constexpr double kHuge = 1e6;
  constexpr double kTiny = 1e-6;
  constexpr size_t kLong = 12;
  std::vector<std::string> texts;
  for (const double value : values)
    texts.push_back(std::isnan(value) ? " NaN" : fmt::format("{: .6f}", value));
  while (AllEndInZero(texts))
    for (std::string& text : texts)
      if (text.find('.') != std::string::npos) text.pop_back();
  for (std::string& text : texts)
    if (text.ends_with('.')) text += '0';
  bool is_long = false;
  bool is_huge = false;
  bool is_tiny = false;
  for (size_t i = 0; i < values.size(); ++i) {
    const double size = std::abs(values[i]);
    is_long = is_long || texts[i].size() > kLong;
    is_huge = is_huge || size > kHuge;
    is_tiny = is_tiny || (size > 0 && size < kTiny);
  }
  if (!is_tiny && !(is_long && is_huge)) return texts;
  for (size_t i = 0; i < values.size(); ++i)
    texts[i] = std::isnan(values[i]) ? " NaN" : fmt::format("{: .6e}", values[i]);
  return texts;
}

}  // namespace

LoadReport MakeLoadReport(const ExpertStatistics& statistics, const ReportOptions& options) {
  CheckProjection(statistics, options);
  const size_t num_groups = CheckedGroups(statistics, options);
  const ExpertStatistics summed =
      statistics.num_ranks == 1 ? ExpertStatistics() : SumRanks(statistics);
  const ExpertStatistics& sums = statistics.num_ranks == 1 ? statistics : summed;
  LoadReport report;
  for (size_t l = 0; l < sums.layers.size(); ++l) {
    const int32_t layer = sums.layers[l];
    bool has_load = false;
    for (int64_t i = 0; i < sums.num_iterations; ++i) has_load |= HasLoad(sums.Row(i, l, 0));
    (has_load ? report.layers : report.layers_without_load).push_back(layer);
    if (!has_load) continue;
    report.rows.push_back(LayerFigures(sums, l, MakeColumns(sums, options, layer, num_groups),
                                       report.ratios.emplace_back()));
  }
  CountEmpty(sums, report);
  report.average = {Average(report.rows, &LoadFigures::mean),
                    Average(report.rows, &LoadFigures::std),
                    Average(report.rows, &LoadFigures::imbalance_ratio),
                    Average(report.rows, &LoadFigures::balancedness)};
  return report;
}

double Percentile(std::vector<double> values, double share) {
  WIDELOAD_CHECK(!values.empty(), "no values");
  const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(values.size())));
  const size_t at = std::clamp<size_t>(rank, 1, values.size()) - 1;
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(at), values.end());
  return values[at];
}

double PercentileOfAll(const std::vector<std::vector<double>>& values, double share) {
  std::vector<double> all;
  for (const std::vector<double>& part : values) all.insert(all.end(), part.begin(), part.end());
  return Percentile(std::move(all), share);
}

std::string FormatLoadReport(const LoadReport& report) {
  std::vector<std::string> labels = {""};
  for (const int32_t layer : report.layers) labels.push_back(fmt::to_string(layer));
  labels.emplace_back("average");
  std::vector<LoadFigures> rows = report.rows;
  rows.push_back(report.average);
  std::vector<std::vector<std::string>> columns;
  const auto add_column = [&](std::string_view name, double LoadFigures::*member) {
    std::vector<double> values;
    for (const LoadFigures& row : rows) values.push_back(row.*member);
    columns.push_back(FormatColumn(values));
    columns.back().insert(columns.back().begin(), fmt::format(" {}", name));
  };
  add_column("mean", &LoadFigures::mean);
  add_column("std", &LoadFigures::std);
  add_column("imbalance-ratio", &LoadFigures::imbalance_ratio);

  const auto width = [](const std::vector<std::string>& texts) {
    return std::max_element(texts.begin(), texts.end(),
                            [](const auto& a, const auto& b) { return a.size() < b.size(); })
        ->size();
  };
  std::string text = "Load statistics:\n";
  for (size_t row = 0; row < labels.size(); ++row) {
    text += fmt::format("{:<{}}", labels[row], width(labels));
    for (const auto& column : columns) text += fmt::format(" {:>{}}", column[row], width(column));
    text += '\n';
  }
  return text;
}

}  // namespace wideload::statistics
