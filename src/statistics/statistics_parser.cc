#include <algorithm>
#include <charconv>
#include <set>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "statistics/statistics_folder.h"
#include "statistics/tensor_numbers.h"

namespace wideload::statistics {
namespace {

constexpr int32_t kMaxExperts = 1 << 16;
constexpr int32_t kMaxLayer = (1 << 13) - 1;
constexpr int64_t kMaxIteration = int64_t{1} << 62;

struct IterLayer {
  int64_t iteration;
  int32_t layer;
  auto operator<=>(const IterLayer&) const = default;
};

IterLayer ParseKey(const std::string& name, const std::string& path) {
  const size_t bar = name.find('_');
  const std::string_view text = name;
  const int64_t iteration =
      bar == std::string::npos ? -1 : ParseDecimalName(text.substr(0, bar), kMaxIteration);
  const int64_t layer =
      bar == std::string::npos ? -1 : ParseDecimalName(text.substr(bar + 1), kMaxLayer);
  if (iteration < 0 || layer < 0)
    Throw(ErrorKind::kCorrupt, "{}: tensor \"{}\"; names must be \"ITERATION_LAYER\"", path, name);
  return {iteration, static_cast<int32_t>(layer)};
}

std::vector<IterLayer> SortedKeys(const SafetensorsFile& file) {
  std::vector<IterLayer> keys;
  for (const auto& [name, view] : file.tensors()) keys.push_back(ParseKey(name, file.path()));
  std::sort(keys.begin(), keys.end());
  return keys;
}

// What one rank file holds: its layers, and which iterations it has of each.
struct RankKeys {
  std::vector<IterLayer> keys;  // ascending
  std::set<int32_t> layers;
};

RankKeys KeysOf(const SafetensorsFile& file) {
  RankKeys found{.keys = SortedKeys(file), .layers = {}};
  if (found.keys.empty()) Throw(ErrorKind::kCorrupt, "{}: holds no iteration", file.path());
  for (const IterLayer& key : found.keys) found.layers.insert(key.layer);
  return found;
}

bool Share(const std::set<int32_t>& a, const std::set<int32_t>& b) {
  return std::any_of(a.begin(), a.end(), [&](int32_t layer) { return b.contains(layer); });
}

// Pipeline stages have layers of their own; ranks of one stage have the same ones.
void CheckStages(std::span<const SafetensorsFile> files, std::span<const RankKeys> ranks) {
  for (size_t r = 1; r < ranks.size(); ++r)
    for (size_t other = 0; other < r; ++other) {
      const std::set<int32_t>& own = ranks[r].layers;
      const std::set<int32_t>& theirs = ranks[other].layers;
      if (own == theirs || !Share(own, theirs)) continue;
      for (const int32_t layer : theirs)
        if (!own.contains(layer))
          Throw(ErrorKind::kCorrupt, "{}: has no tensor {}_{}, which {} has", files[r].path(),
                ranks[other].keys.front().iteration, layer, files[other].path());
      for (const int32_t layer : own)
        if (!theirs.contains(layer))
          Throw(ErrorKind::kCorrupt, "{}: has tensor {}_{}, which {} has not", files[r].path(),
                ranks[r].keys.front().iteration, layer, files[other].path());
    }
}

// The iterations that any rank recorded, as one range, and the layers of all.
void ReadExtent(std::span<const RankKeys> ranks, ExpertStatistics& statistics) {
  std::set<int32_t> layers;
  int64_t first = ranks[0].keys.front().iteration;
  int64_t last = first;
  for (const RankKeys& rank : ranks) {
    layers.insert(rank.layers.begin(), rank.layers.end());
    first = std::min(first, rank.keys.front().iteration);
    last = std::max(last, rank.keys.back().iteration);
  }
  statistics.layers.assign(layers.begin(), layers.end());
  statistics.iter_start = first;
  statistics.num_iterations = last - first + 1;
}

// Every iteration of the window [start, stop) has every layer of the rank.
void CheckComplete(const SafetensorsFile& file, const RankKeys& rank, int64_t start, int64_t stop) {
  auto next = std::lower_bound(rank.keys.begin(), rank.keys.end(), IterLayer{start, 0});
  for (int64_t i = start; i < stop; ++i)
    for (const int32_t layer : rank.layers) {
      if (next != rank.keys.end() && *next == IterLayer{i, layer}) {
        ++next;
        continue;
      }
      const bool has_iteration =
          (next != rank.keys.end() && next->iteration == i) || layer != *rank.layers.begin();
      if (has_iteration)
        Throw(ErrorKind::kCorrupt, "{}: has no tensor {}_{}; every iteration must have every layer",
              file.path(), i, layer);
      Throw(ErrorKind::kCorrupt, "{}: iteration {} is missing; iterations must be consecutive",
            file.path(), i);
    }
}

// The window wanted, checked against the recorded one, as [first, last) iterations from 0.
std::pair<int64_t, int64_t> Window(const ExpertStatistics& recorded,
                                   const ReadStatisticsOptions& options, const std::string& path) {
  const int64_t start = options.iter_start.value_or(recorded.iter_start);
  const int64_t stop = options.iter_stop.value_or(recorded.iter_stop());
  if (start < recorded.iter_start || stop > recorded.iter_stop() || start >= stop)
    Throw(ErrorKind::kInvalid,
          "iter_start {} iter_stop {}: must be a range within [{}, {}), the iterations of {}",
          start, stop, recorded.iter_start, recorded.iter_stop(), path);
  return {start - recorded.iter_start, stop - recorded.iter_start};
}

void CheckTensors(const SafetensorsFile& file, int32_t num_experts) {
  for (const auto& [name, view] : file.tensors()) {
    const bool is_integer = view.dtype() == DType::kI64 || view.dtype() == DType::kI32 ||
                            view.dtype() == DType::kU32 || view.dtype() == DType::kU64;
    if (!is_integer || view.shape() != Shape{num_experts})
      Throw(ErrorKind::kInvalid, "{}: tensor {} is {} {}; it must be I64 [{}] or I32 [{}]",
            file.path(), name, DTypeName(view.dtype()), view.shape().ToString(), num_experts,
            num_experts);
  }
}

// One tensor, checked and copied (it may lie unaligned in the file).
void ReadRow(const SafetensorsFile& file, const std::string& name, std::span<int64_t> row) {
  const TensorView view = file.Get(name);
  const std::string where = fmt::format("{}: tensor {}", file.path(), name);
  for (size_t e = 0; e < row.size(); ++e) row[e] = IntegerAt(view, static_cast<int64_t>(e), where);
  const auto negative = std::find_if(row.begin(), row.end(), [](int64_t n) { return n < 0; });
  if (negative != row.end())
    Throw(ErrorKind::kInvalid, "{} counts {} for expert {}; it must be at least 0", where,
          *negative, negative - row.begin());
}

// Layers of other pipeline stages count nothing for this rank.
void ReadRank(const SafetensorsFile& file, const std::set<int32_t>& layers, int32_t rank,
              ExpertStatistics& statistics) {
  std::vector<int64_t> row(static_cast<size_t>(statistics.num_experts));
  for (int64_t i = 0; i < statistics.num_iterations; ++i)
    for (size_t l = 0; l < statistics.layers.size(); ++l) {
      if (!layers.contains(statistics.layers[l])) continue;
      const std::string name =
          fmt::format("{}_{}", statistics.iter_start + i, statistics.layers[l]);
      ReadRow(file, name, row);
      const int32_t target = statistics.num_ranks == 1 ? 0 : rank;
      int64_t* sum = statistics.counts.data() + statistics.RowOffset(i, l, target);
      AddCounts(row, {sum, row.size()}, fmt::format("{}: tensor {}", file.path(), name));
    }
}

int32_t RanksOfLayer(std::span<const RankKeys> ranks, int32_t layer) {
  return static_cast<int32_t>(std::count_if(ranks.begin(), ranks.end(), [&](const RankKeys& rank) {
    return rank.layers.contains(layer);
  }));
}

// Stages have as many ranks each: where one has fewer, rank files are missing, and the loads of its
// layers would be too small.
void CheckStageSizes(std::span<const RankKeys> ranks, const std::vector<int32_t>& layers,
                     const std::string& path) {
  const int32_t first = layers.front();
  const int32_t expected = RanksOfLayer(ranks, first);
  for (const int32_t layer : layers) {
    const int32_t found = RanksOfLayer(ranks, layer);
    if (found != expected)
      Throw(ErrorKind::kNotFound,
            "{}: {} of the rank files beside it have layer {}, but {} have layer {}; files of a "
            "pipeline stage are missing",
            path, expected, first, found, layer);
  }
}

// Some recorders note how many ranks there were; then the last ones cannot be missing unseen.
void CheckRecordedRanks(const JsonFields& meta, std::span<const SafetensorsFile> files) {
  const auto present = std::ssize(files);
  const int64_t told = meta.IntOr("ep_size", present, 1, 1 << 20);
  if (told > present)
    Throw(ErrorKind::kNotFound,
          "{}: says ep_size {}, but only {} rank files are there; missing: {}{}", meta.source(),
          told, present, RankFileName(present),
          told - present > 1 ? fmt::format(" to {}", RankFileName(told - 1)) : "");
}

}  // namespace

// A decimal without sign or leading zeros in [0, max], or -1.
int64_t ParseDecimalName(std::string_view text, int64_t max) {
  int64_t value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool canonical = error == std::errc() && end == text.data() + text.size() && value >= 0 &&
                         value <= max && (text[0] != '0' || text.size() == 1);
  return canonical ? value : -1;
}

ExpertStatistics ParseStatistics(std::string_view meta_json, const std::string& meta_path,
                                 std::span<const SafetensorsFile> files,
                                 const ReadStatisticsOptions& options) {
  WIDELOAD_CHECK(!files.empty(), "no rank files");
  const Json json = ParseJson(meta_json, meta_path);
  const JsonFields meta(json, meta_path);
  ExpertStatistics statistics;
  statistics.num_experts = static_cast<int32_t>(meta.Int("num_experts", 1, kMaxExperts));
  statistics.experts_per_token =
      static_cast<int32_t>(meta.Int("num_experts_per_token", 1, statistics.num_experts));
  statistics.ep_size = static_cast<int32_t>(files.size());
  statistics.num_ranks = options.sum_ranks ? 1 : statistics.ep_size;
  CheckRecordedRanks(meta, files);
  std::vector<RankKeys> ranks;
  for (const SafetensorsFile& file : files) ranks.push_back(KeysOf(file));
  for (const SafetensorsFile& file : files) CheckTensors(file, statistics.num_experts);
  CheckStages(files, ranks);
  ReadExtent(ranks, statistics);
  CheckStageSizes(ranks, statistics.layers, meta_path);
  const int32_t recorded = RanksOfLayer(ranks, statistics.layers.front());
  statistics.ranks_per_layer = recorded == statistics.ep_size ? 0 : recorded;

  const auto [first, last] = Window(statistics, options, files[0].path());
  statistics.iter_start += first;
  statistics.num_iterations = last - first;
  for (size_t r = 0; r < files.size(); ++r)
    CheckComplete(files[r], ranks[r], statistics.iter_start, statistics.iter_stop());
  statistics.counts.assign(
      static_cast<size_t>(statistics.num_iterations) * statistics.layers.size() *
          static_cast<size_t>(statistics.num_ranks) * static_cast<size_t>(statistics.num_experts),
      0);
  for (size_t r = 0; r < files.size(); ++r)
    ReadRank(files[r], ranks[r].layers, static_cast<int32_t>(r), statistics);
  return statistics;
}

}  // namespace wideload::statistics
