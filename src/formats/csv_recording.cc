#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <optional>

#include "base/error.h"
#include "formats/read_recording.h"
#include "statistics/eplb_yaml.h"

namespace wideload::formats {
namespace {

constexpr int32_t kMaxLayer = statistics::kMaxEplbLayers - 1;

enum Column { kLayer, kExpert, kCount, kStep, kNumColumns };
constexpr std::array<std::array<std::string_view, 5>, kNumColumns> kNames = {{
    {"layer", "layer_id", "layer_idx", "layer_index", "moe_layer"},
    {"expert", "expert_id", "expert_idx", "logical_expert_id", "logical_expert"},
    {"count", "load", "tokens", "num_tokens", "token_count"},
    {"step", "iteration", "forward_pass_id", "iter", "step_id"},
}};

std::string_view Trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\"";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return "";
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

std::vector<std::string_view> Cells(std::string_view line) {
  std::vector<std::string_view> cells;
  while (true) {
    const size_t comma = line.find(',');
    cells.push_back(Trimmed(line.substr(0, comma)));
    if (comma == std::string_view::npos) return cells;
    line.remove_prefix(comma + 1);
  }
}

// Which cell each column is; nothing unless layer, expert and count are named.
std::optional<std::array<int, kNumColumns>> HeaderColumns(std::string_view line) {
  std::array<int, kNumColumns> at;
  at.fill(-1);
  const std::vector<std::string_view> cells = Cells(line);
  for (size_t i = 0; i < cells.size(); ++i)
    for (size_t column = 0; column < kNumColumns; ++column)
      if (std::find(kNames[column].begin(), kNames[column].end(), cells[i]) != kNames[column].end())
        at[column] = static_cast<int>(i);
  if (at[kLayer] < 0 || at[kExpert] < 0 || at[kCount] < 0) return std::nullopt;
  return at;
}

// Whether a first line names columns instead of holding numbers, in a table with a line per layer.
bool IsHeaderOfExperts(std::string_view line) {
  const std::vector<std::string_view> cells = Cells(line);
  return std::all_of(cells.begin(), cells.end(), [](std::string_view cell) {
    double value = 0;
    const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
    return error != std::errc() || end != cell.data() + cell.size();
  });
}

class LongTable {
 public:
  explicit LongTable(const std::array<int, kNumColumns>& columns) : columns_(columns) {}

  void Line(std::string_view line, const std::string& where) {
    const std::vector<std::string_view> cells = Cells(line);
    const auto step =
        columns_[kStep] < 0 ? 0 : static_cast<int64_t>(Value(cells, kStep, 1e15, true, where));
    const auto layer = static_cast<int32_t>(Value(cells, kLayer, kMaxLayer, true, where));
    const auto expert =
        static_cast<int32_t>(Value(cells, kExpert, statistics::kMaxTableExperts - 1, true, where));
    const double count = Value(cells, kCount, kMaxLoad, false, where);
    num_experts_ = std::max(num_experts_, expert + 1);
    layers_[layer] = true;
    if (!steps_[step].try_emplace({layer, expert}, count).second)
      Throw(ErrorKind::kCorrupt, "{}: layer {} and expert {} are there twice{}", where, layer,
            expert, columns_[kStep] < 0 ? "" : fmt::format(" in step {}", step));
  }

  Recording Finish(const std::string& source) const {
    if (steps_.empty()) Throw(ErrorKind::kCorrupt, "{}: holds no line but its header", source);
    if (std::ssize(steps_) * std::ssize(layers_) * num_experts_ > kMaxTableNumbers)
      Throw(ErrorKind::kResource,
            "{}: {} steps of {} layers and {} experts are more than {} numbers", source,
            steps_.size(), layers_.size(), num_experts_, kMaxTableNumbers);
    Recording recording{.source = source, .format = "CSV with columns layer, expert, count"};
    recording.loads.num_experts = num_experts_;
    for (const auto& [step, counts] : steps_) {
      for (const auto& [layer, is_there] : layers_) {
        std::vector<double> loads(static_cast<size_t>(num_experts_), 0);
        for (auto it = counts.lower_bound({layer, 0});
             it != counts.end() && it->first.first == layer; ++it)
          loads[static_cast<size_t>(it->first.second)] = it->second;
        if (columns_[kStep] < 0)
          recording.loads.layers[layer] = std::move(loads);
        else
          AddBatch(recording.loads, layer, std::move(loads));
      }
      if (columns_[kStep] >= 0) recording.steps.push_back(step);
    }
    return recording;
  }

 private:
  double Value(const std::vector<std::string_view>& cells, Column column, double max,
               bool is_integer, const std::string& where) const {
    const auto at = static_cast<size_t>(columns_[column]);
    const std::string_view text = at < cells.size() ? cells[at] : "";
    double value = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || !(value >= 0 && value <= max) ||
        (is_integer && value != static_cast<double>(static_cast<int64_t>(value))))
      Throw(ErrorKind::kCorrupt, "{}: {} is \"{}\"; it must be {} in [0, {}]", where,
            kNames[column][0], text.substr(0, 40), is_integer ? "an integer" : "a number", max);
    return value;
  }

  std::array<int, kNumColumns> columns_;
  int32_t num_experts_ = 0;
  std::map<int32_t, bool> layers_;
  std::map<int64_t, std::map<std::pair<int32_t, int32_t>, double>> steps_;
};

}  // namespace

Recording ParseCsvRecording(std::string_view text, const std::string& source) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  std::string_view rest = text;
  if (rest.starts_with(kByteOrderMark)) rest.remove_prefix(kByteOrderMark.size());
  const std::string_view header = rest.substr(0, rest.find('\n'));
  const auto columns = HeaderColumns(header);
  if (!columns) {
    // A header that names experts is no layer; one that begins with "layer," is ParseLoadCsv's. The
    // line's end stays, so that lines keep their numbers.
    if (IsHeaderOfExperts(header) && !header.starts_with("layer,"))
      text = rest.substr(header.size());
    return {.source = source,
            .format = "CSV with a line per layer",
            .loads = statistics::ParseLoadCsv(text, source)};
  }
  LongTable table(*columns);
  int64_t number = 0;
  while (!rest.empty()) {
    const size_t end = rest.find('\n');
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (++number > 1 && !Trimmed(line).empty())
      table.Line(line, fmt::format("{}:{}", source, number));
  }
  return table.Finish(source);
}

}  // namespace wideload::formats
