#include "statistics/load_files.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "statistics/tensor_numbers.h"

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

// An array of numbers >= 0.
std::vector<double> JsonLoads(const Json& row, const std::string& where) {
  if (!row.is_array()) Throw(ErrorKind::kInvalid, "{} must be an array of numbers", where);
  std::vector<double> loads;
  for (const Json& value : row) {
    if (!value.is_number())
      Throw(ErrorKind::kInvalid, "{}[{}] must be a number", where, loads.size());
    CheckLoad(value.get<double>(), fmt::format("{}[{}]", where, loads.size()));
    loads.push_back(value.get<double>());
  }
  return loads;
}

LoadTable JsonLayers(const Json& layers, const std::string& where) {
  if (!layers.is_array() || layers.empty() || layers.size() > kMaxLayers)
    Throw(ErrorKind::kInvalid, "{} must be an array of 1 to {} layers", where, kMaxLayers);
  LoadTable table;
  for (size_t l = 0; l < layers.size(); ++l) {
    const std::string row = fmt::format("{}[{}]", where, l);
    AddLayer(table, static_cast<int32_t>(l), JsonLoads(layers[l], row), row);
  }
  return table;
}

// [layers][experts], or [steps][layers][experts], which are batches.
LoadTable JsonCounts(const Json& counts, const std::string& where) {
  const bool has_steps = counts.is_array() && !counts.empty() && counts[0].is_array() &&
                         !counts[0].empty() && counts[0][0].is_array();
  if (!has_steps) return JsonLayers(counts, where);
  LoadTable sum = JsonLayers(counts[0], where + "[0]");
  for (const auto& [layer, loads] : sum.layers) sum.batches[layer].push_back(loads);
  for (size_t s = 1; s < counts.size(); ++s) {
    const std::string step_where = fmt::format("{}[{}]", where, s);
    const LoadTable step = JsonLayers(counts[s], step_where);
    if (step.num_experts != sum.num_experts || step.layers.size() != sum.layers.size())
      Throw(ErrorKind::kInvalid, "{} is [{}, {}]; the steps before are [{}, {}]", step_where,
            step.layers.size(), step.num_experts, sum.layers.size(), sum.num_experts);
    for (auto& [layer, loads] : sum.layers) {
      const std::vector<double>& batch = step.layers.at(layer);
      for (size_t e = 0; e < loads.size(); ++e) loads[e] += batch[e];
      sum.batches[layer].push_back(batch);
    }
  }
  return sum;
}

std::vector<std::vector<int32_t>> JsonPlacement(const Json& map, const std::string& where) {
  if (!map.is_array() || map.empty() || map.size() > kMaxLayers)
    Throw(ErrorKind::kInvalid, "{} must be an array of 1 to {} layers", where, kMaxLayers);
  std::vector<std::vector<int32_t>> layers;
  for (size_t l = 0; l < map.size(); ++l) {
    if (!map[l].is_array() || map[l].empty() || map[l].size() != map[0].size())
      Throw(ErrorKind::kInvalid, "{}[{}] must be an array of {} experts", where, l,
            std::max<size_t>(map[0].size(), 1));
    std::vector<int32_t>& slots = layers.emplace_back();
    for (const Json& value : map[l]) {
      const bool fits = value.is_number_unsigned() && value.get<uint64_t>() < kMaxTableExperts;
      if (!fits)
        Throw(ErrorKind::kInvalid, "{}[{}][{}] must be an expert in [0, {}]", where, l,
              slots.size(), kMaxTableExperts - 1);
      slots.push_back(value.get<int32_t>());
    }
  }
  return layers;
}

// Counts stay integers where they are.
Json JsonNumber(double value) {
  constexpr double kExact = 9007199254740992;  // 2^53
  if (value == std::floor(value) && value < kExact) return static_cast<int64_t>(value);
  return value;
}

}  // namespace

namespace {

// "a, b, c and 5 more", in the order of the alphabet.
std::string TensorNames(const SafetensorsFile& file) {
  constexpr size_t kShown = 8;
  std::vector<std::string> names;
  for (const auto& [name, view] : file.tensors()) names.push_back(name);
  const size_t shown = std::min(kShown, names.size());
  std::string text =
      fmt::to_string(fmt::join(names.begin(), names.begin() + static_cast<int64_t>(shown), ", "));
  if (shown < names.size()) text += fmt::format(" and {} more", names.size() - shown);
  return text.empty() ? "none" : text;
}

}  // namespace

LoadTable LoadsOfTensor(const SafetensorsFile& file, const std::string& tensor) {
  if (!file.tensors().contains(tensor))
    Throw(ErrorKind::kNotFound, "{}: has no tensor \"{}\"; it has {}", file.path(), tensor,
          TensorNames(file));
  const TensorView view = file.Get(tensor);
  const std::string where = fmt::format("{}: tensor {}", file.path(), tensor);
  if (view.shape().rank() != 2 || view.dim(0) < 1 || view.dim(0) > kMaxLayers || view.dim(1) < 1 ||
      view.dim(1) > kMaxTableExperts)
    Throw(ErrorKind::kInvalid, "{} is {}; it must be [layers, experts] of at most [{}, {}]", where,
          view.shape().ToString(), kMaxLayers, kMaxTableExperts);
  LoadTable table{.num_experts = static_cast<int32_t>(view.dim(1))};
  for (int64_t l = 0; l < view.dim(0); ++l) {
    std::vector<double>& loads = table.layers[static_cast<int32_t>(l)];
    for (int64_t e = 0; e < view.dim(1); ++e) {
      loads.push_back(NumberAt(view, l * view.dim(1) + e, where));
      CheckLoad(loads.back(), fmt::format("{}[{}, {}]", where, l, e));
    }
  }
  return table;
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

SglangFile ParseSglangJson(std::string_view text, const std::string& source) {
  const Json json = ParseJson(text, source);
  const JsonFields fields(json, source);
  SglangFile file;
  if (const Json* counts = fields.Find("logical_count"))
    file.loads = JsonCounts(*counts, fields.Where("logical_count"));
  if (const Json* map = fields.Find("physical_to_logical_map"))
    file.slot_expert = JsonPlacement(*map, fields.Where("physical_to_logical_map"));
  if (!file.loads && file.slot_expert.empty())
    Throw(ErrorKind::kInvalid,
          "{}: has neither logical_count nor physical_to_logical_map; one of them must be there",
          source);
  return file;
}

std::string FormatSglangCounts(const LoadTable& table) {
  Json rows = Json::array();
  const int32_t num_layers = table.layers.empty() ? 0 : table.layers.rbegin()->first + 1;
  for (int32_t l = 0; l < num_layers; ++l) {
    Json row = Json::array();
    const auto it = table.layers.find(l);
    for (int32_t e = 0; e < table.num_experts; ++e)
      row.push_back(it == table.layers.end() ? Json(0)
                                             : JsonNumber(it->second[static_cast<size_t>(e)]));
    rows.push_back(std::move(row));
  }
  return DumpJson({{"logical_count", rows}}) + "\n";
}

std::string FormatSglangPlacement(const EplbConfig& config) {
  Json rows = Json::array();
  const int32_t num_layers = config.layers.empty() ? 0 : config.layers.rbegin()->first + 1;
  const int32_t num_experts = config.num_experts();
  for (int32_t l = 0; l < num_layers; ++l) {
    const auto it = config.layers.find(l);
    std::vector<int32_t> slots;
    for (int32_t s = 0; s < config.num_slots; ++s)
      slots.push_back(it == config.layers.end() ? s % num_experts
                                                : it->second[static_cast<size_t>(s)]);
    rows.push_back(std::move(slots));
  }
  return DumpJson({{"physical_to_logical_map", rows}}) + "\n";
}

LoadTable ReadLoads(const std::string& path_and_tensor) {
  if (path_and_tensor.ends_with(".csv"))
    return ParseLoadCsv(ReadFile(path_and_tensor), path_and_tensor);
  if (path_and_tensor.ends_with(".json")) {
    const SglangFile file = ParseSglangJson(ReadFile(path_and_tensor), path_and_tensor);
    if (!file.loads)
      Throw(ErrorKind::kInvalid, "{}: has no logical_count; it must be there", path_and_tensor);
    return *file.loads;
  }
  const size_t colon = path_and_tensor.rfind(':');
  if (colon == std::string::npos || colon == 0)
    Throw(ErrorKind::kInvalid,
          "loads is \"{}\"; it must be FILE.safetensors:TENSOR, FILE.csv or FILE.json",
          path_and_tensor);
  return LoadsOfTensor(SafetensorsFile(path_and_tensor.substr(0, colon)),
                       path_and_tensor.substr(colon + 1));
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
