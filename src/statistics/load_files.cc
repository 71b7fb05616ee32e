#include "statistics/load_files.h"

#include <charconv>
#include <cmath>

#include "base/error.h"

namespace wideload::statistics {
namespace {

constexpr int32_t kMaxLayers = 1 << 13;
constexpr double kMaxLoad = 1e30;  // kMaxTableExperts of them still add up in single precision

void CheckLoad(double load, const std::string& where) {
  if (!(load >= 0 && load <= kMaxLoad))
    Throw(ErrorKind::kInvalid, "{} is {}; it must be finite, at least 0 and at most {}", where,
          load, kMaxLoad);
}

std::vector<double> ParseCsvLine(std::string_view line, const std::string& where) {
  std::vector<double> values;
  while (true) {
    const size_t comma = line.find(',');
    std::string_view text = line.substr(0, comma);
    while (text.starts_with(' ')) text.remove_prefix(1);
    while (text.ends_with(' ')) text.remove_suffix(1);
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size())
      Throw(ErrorKind::kCorrupt, "{}: value {} is \"{}\"; it must be a number", where,
            values.size() + 1, text.substr(0, 40));
    CheckLoad(value, fmt::format("{}: value {}", where, values.size() + 1));
    values.push_back(value);
    if (comma == std::string_view::npos) return values;
    line.remove_prefix(comma + 1);
  }
}

// Takes the first column off and checks that it is a layer index.
int32_t TakeLayer(std::vector<double>& values, const std::string& where) {
  const double layer = values.front();
  if (layer != std::floor(layer) || layer >= kMaxLayers)
    Throw(ErrorKind::kInvalid, "{}: layer is {}; it must be an integer in [0, {}]", where, layer,
          kMaxLayers - 1);
  values.erase(values.begin());
  return static_cast<int32_t>(layer);
}

void AddLayer(LoadTable& table, int32_t layer, std::vector<double>&& loads,
              const std::string& where) {
  if (loads.empty() || loads.size() > kMaxTableExperts)
    Throw(ErrorKind::kInvalid, "{}: has {} experts; allowed: 1 to {}", where, loads.size(),
          kMaxTableExperts);
  if (layer >= kMaxLayers)
    Throw(ErrorKind::kInvalid, "{}: is layer {}; at most {} layers are allowed", where, layer,
          kMaxLayers);
  if (table.layers.empty()) table.num_experts = static_cast<int32_t>(loads.size());
  if (std::ssize(loads) != table.num_experts)
    Throw(ErrorKind::kInvalid, "{}: has {} experts; the layers before have {}", where, loads.size(),
          table.num_experts);
  if (!table.layers.try_emplace(layer, std::move(loads)).second)
    Throw(ErrorKind::kCorrupt, "{}: layer {} is there twice", where, layer);
}

}  // namespace

eplb::BatchLoads LayerBatches(const LoadTable& table, int32_t layer) {
  eplb::BatchLoads batches{table.num_experts};
  if (table.batches.empty()) batches.Add(table.layers.at(layer));
  if (!table.batches.empty())
    for (const std::vector<double>& batch : table.batches.at(layer)) batches.Add(batch);
  return batches;
}

LoadTable ParseLoadCsv(std::string_view text, const std::string& source) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";  // spreadsheets write one
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  LoadTable table;
  bool has_layers = false;
  int32_t next_layer = 0;
  for (int64_t line_number = 1; !text.empty(); ++line_number) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    if (line.starts_with("layer,") && table.layers.empty() && !has_layers) {
      has_layers = true;
      continue;
    }
    const std::string where = fmt::format("{}:{}", source, line_number);
    std::vector<double> values = ParseCsvLine(line, where);
    const int32_t layer = has_layers ? TakeLayer(values, where) : next_layer++;
    AddLayer(table, layer, std::move(values), where);
  }
  if (table.layers.empty())
    Throw(ErrorKind::kCorrupt, "{}: holds no layer; each line must be one", source);
  return table;
}

std::string FormatLoadCsv(const LoadTable& table) {
  std::string text = "layer";
  for (int32_t e = 0; e < table.num_experts; ++e) text += fmt::format(",{}", e);
  text += '\n';
  for (const auto& [layer, loads] : table.layers)
    text += fmt::format("{},{}\n", layer, fmt::join(loads, ","));
  return text;
}

LoadTable StatisticsLoads(const ExpertStatistics& statistics) {
  LoadTable table{.num_experts = statistics.num_experts};
  for (size_t l = 0; l < statistics.num_layers(); ++l) {
    const std::vector<int64_t> counts = LayerLoads(statistics, l);
    table.layers[statistics.layers[l]].assign(counts.begin(), counts.end());
  }
  return table;
}

}  // namespace wideload::statistics
