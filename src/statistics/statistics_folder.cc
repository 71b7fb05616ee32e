#include "statistics/statistics_folder.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <limits>
#include <set>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

namespace wideload::statistics {
namespace {

namespace fs = std::filesystem;

constexpr int32_t kMaxExperts = 1 << 16;
constexpr int32_t kMaxLayer = (1 << 13) - 1;
constexpr int64_t kMaxIteration = int64_t{1} << 62;
constexpr char kMetaName[] = "meta_info.json";

struct IterLayer {
  int64_t iteration;
  int32_t layer;
  auto operator<=>(const IterLayer&) const = default;
};

// A decimal without sign or leading zeros in [0, max], or -1.
int64_t ParseDecimal(std::string_view text, int64_t max) {
  int64_t value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool canonical = error == std::errc() && end == text.data() + text.size() && value >= 0 &&
                         value <= max && (text[0] != '0' || text.size() == 1);
  return canonical ? value : -1;
}

std::string RankName(int64_t rank) { return fmt::format("rank{}.safetensors", rank); }

// The r of "rank{r}.safetensors", or -1.
int64_t RankOfName(std::string_view name) {
  constexpr std::string_view kPrefix = "rank";
  constexpr std::string_view kSuffix = ".safetensors";
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix) ||
      name.size() <= kPrefix.size() + kSuffix.size())
    return -1;
  name.remove_prefix(kPrefix.size());
  name.remove_suffix(kSuffix.size());
  return ParseDecimal(name, std::numeric_limits<int32_t>::max());
}

IterLayer ParseKey(const std::string& name, const std::string& path) {
  const size_t bar = name.find('_');
  const std::string_view text = name;
  const int64_t iteration =
      bar == std::string::npos ? -1 : ParseDecimal(text.substr(0, bar), kMaxIteration);
  const int64_t layer =
      bar == std::string::npos ? -1 : ParseDecimal(text.substr(bar + 1), kMaxLayer);
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

// Fills iterations and layers from rank 0's names, which must be a complete grid.
void ReadGrid(const SafetensorsFile& file, const std::vector<IterLayer>& keys,
              ExpertStatistics& statistics) {
  if (keys.empty()) Throw(ErrorKind::kCorrupt, "{}: holds no iteration", file.path());
  std::set<int32_t> layers;
  int64_t last = keys.front().iteration - 1;
  for (const IterLayer& key : keys) {
    layers.insert(key.layer);
    if (key.iteration > last + 1)
      Throw(ErrorKind::kCorrupt, "{}: iteration {} is missing; iterations must be consecutive",
            file.path(), last + 1);
    last = key.iteration;
  }
  statistics.layers.assign(layers.begin(), layers.end());
  statistics.iter_start = keys.front().iteration;
  statistics.num_iterations = last - statistics.iter_start + 1;
  size_t next = 0;
  for (int64_t i = statistics.iter_start; i <= last; ++i)
    for (const int32_t layer : statistics.layers)
      if (next >= keys.size() || keys[next++] != IterLayer{i, layer})
        Throw(ErrorKind::kCorrupt, "{}: has no tensor {}_{}; every iteration must have every layer",
              file.path(), i, layer);
}

void CheckSameKeys(const SafetensorsFile& first, const std::vector<IterLayer>& keys,
                   const SafetensorsFile& file) {
  const std::vector<IterLayer> own = SortedKeys(file);
  const auto [a, b] = std::mismatch(keys.begin(), keys.end(), own.begin(), own.end());
  if (a == keys.end() && b == own.end()) return;
  if (b == own.end() || (a != keys.end() && *a < *b))
    Throw(ErrorKind::kCorrupt, "{}: has no tensor {}_{}, which {} has", file.path(), a->iteration,
          a->layer, first.path());
  Throw(ErrorKind::kCorrupt, "{}: has tensor {}_{}, which {} has not", file.path(), b->iteration,
        b->layer, first.path());
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

// One tensor, checked and copied (it may lie unaligned in the file).
void ReadRow(const SafetensorsFile& file, const std::string& name, std::span<int64_t> row) {
  const TensorView view = file.Get(name, DType::kI64, Shape{std::ssize(row)});
  std::memcpy(row.data(), view.raw(), row.size_bytes());
  const auto negative = std::find_if(row.begin(), row.end(), [](int64_t n) { return n < 0; });
  if (negative != row.end())
    Throw(ErrorKind::kInvalid, "{}: tensor {} counts {} for expert {}; it must be at least 0",
          file.path(), name, *negative, negative - row.begin());
}

void ReadRank(const SafetensorsFile& file, int32_t rank, ExpertStatistics& statistics) {
  std::vector<int64_t> row(static_cast<size_t>(statistics.num_experts));
  for (int64_t i = 0; i < statistics.num_iterations; ++i)
    for (size_t l = 0; l < statistics.layers.size(); ++l) {
      const std::string name =
          fmt::format("{}_{}", statistics.iter_start + i, statistics.layers[l]);
      ReadRow(file, name, row);
      const int32_t target = statistics.num_ranks == 1 ? 0 : rank;
      int64_t* sum = statistics.counts.data() + statistics.RowOffset(i, l, target);
      AddCounts(row, {sum, row.size()}, fmt::format("{}: tensor {}", file.path(), name));
    }
}

std::vector<std::string> NamesIn(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    names.push_back(it->path().filename().string());
  if (error) Throw(ErrorKind::kIo, "{}: cannot list: {}", folder, error.message());
  std::sort(names.begin(), names.end());
  return names;
}

int64_t CountRankFiles(const std::string& folder) {
  std::vector<int64_t> ranks;
  for (const std::string& name : NamesIn(folder))
    if (const int64_t rank = RankOfName(name); rank >= 0) ranks.push_back(rank);
  std::sort(ranks.begin(), ranks.end());
  for (size_t r = 0; r < ranks.size(); ++r)
    if (ranks[r] != static_cast<int64_t>(r))
      Throw(ErrorKind::kNotFound, "{}/{}: no such file, but {} is there", folder,
            RankName(static_cast<int64_t>(r)), RankName(ranks.back()));
  if (ranks.empty()) Throw(ErrorKind::kNotFound, "{}/{}: no such file", folder, RankName(0));
  return std::ssize(ranks);
}

std::string WithoutTrailingSlash(std::string folder) {
  while (folder.size() > 1 && folder.ends_with('/')) folder.pop_back();
  return folder;
}

void WriteRank(const std::string& path, const ExpertStatistics& statistics, int32_t rank) {
  std::vector<std::pair<std::string, TensorView>> tensors;
  for (int64_t i = 0; i < statistics.num_iterations; ++i)
    for (size_t l = 0; l < statistics.layers.size(); ++l)
      tensors.emplace_back(fmt::format("{}_{}", statistics.iter_start + i, statistics.layers[l]),
                           TensorView(DType::kI64, Shape{statistics.num_experts},
                                      statistics.Row(i, l, rank).data()));
  std::sort(tensors.begin(), tensors.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  WriteSafetensors(path, tensors);
}

}  // namespace

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
  const std::vector<IterLayer> keys = SortedKeys(files[0]);
  ReadGrid(files[0], keys, statistics);
  for (const SafetensorsFile& file : files.subspan(1)) CheckSameKeys(files[0], keys, file);
  for (const SafetensorsFile& file : files)
    for (const auto& [name, view] : file.tensors())
      file.Get(name, DType::kI64, Shape{statistics.num_experts});

  const auto [first, last] = Window(statistics, options, files[0].path());
  statistics.iter_start += first;
  statistics.num_iterations = last - first;
  statistics.counts.assign(
      static_cast<size_t>(statistics.num_iterations) * statistics.layers.size() *
          static_cast<size_t>(statistics.num_ranks) * static_cast<size_t>(statistics.num_experts),
      0);
  for (size_t r = 0; r < files.size(); ++r) ReadRank(files[r], static_cast<int32_t>(r), statistics);
  return statistics;
}

ExpertStatistics ReadStatistics(const std::string& folder, const ReadStatisticsOptions& options) {
  if (!IsDirectory(folder)) Throw(ErrorKind::kNotFound, "{}: no such folder", folder);
  const std::string meta_path = folder + "/" + kMetaName;
  const std::string meta = ReadFile(meta_path, kMaxSettingsBytes);
  std::vector<SafetensorsFile> files;
  const int64_t num_ranks = CountRankFiles(folder);
  for (int64_t r = 0; r < num_ranks; ++r) files.emplace_back(folder + "/" + RankName(r));
  ExpertStatistics statistics = ParseStatistics(meta, meta_path, files, options);
  if (!options.eplb_config_path) return statistics;
  return SlotsToExperts(statistics, ReadEplbYaml(*options.eplb_config_path),
                        *options.eplb_config_path);
}

void CheckStatisticsFolder(const std::string& folder, ExistingFolder existing) {
  const std::string path = WithoutTrailingSlash(folder);
  const std::string parent = fs::absolute(path).parent_path().string();
  if (!IsDirectory(parent) || ::access(parent.c_str(), W_OK) != 0)
    Throw(ErrorKind::kInvalid, "{}: cannot write: {} must be a folder that can be written", path,
          parent);
  if (!FileExists(path)) return;
  if (!IsDirectory(path)) Throw(ErrorKind::kInvalid, "{}: is a file; it must be a folder", path);
  for (const std::string& name : NamesIn(path)) {
    if (name != kMetaName && RankOfName(name) < 0)
      Throw(ErrorKind::kInvalid, "{}: holds {}, which is no statistics file; give another folder",
            path, name);
    if (existing == ExistingFolder::kRefuse)
      Throw(ErrorKind::kInvalid,
            "{}: holds {} of another run; give another folder or ask for it to be replaced", path,
            name);
  }
}

void WriteStatistics(const std::string& folder, const ExpertStatistics& statistics,
                     ExistingFolder existing) {
  const std::string path = WithoutTrailingSlash(folder);
  CheckStatisticsFolder(path, existing);
  WholeFolderWriter writer(path);
  WriteFileWhole(writer.PathOf(kMetaName),
                 fmt::format("{{\"num_experts\": {}, \"num_experts_per_token\": {}}}",
                             statistics.num_experts, statistics.experts_per_token));
  for (int32_t r = 0; r < statistics.num_ranks; ++r)
    WriteRank(writer.PathOf(RankName(r)), statistics, r);
  writer.Commit();
}

}  // namespace wideload::statistics
