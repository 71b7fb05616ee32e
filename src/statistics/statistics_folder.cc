#include "statistics/statistics_folder.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

namespace wideload::statistics {
namespace {

namespace fs = std::filesystem;

constexpr char kMetaName[] = "meta_info.json";

// The r of "rank{r}.safetensors", or -1.
int64_t RankOfName(std::string_view name) {
  constexpr std::string_view kPrefix = "rank";
  constexpr std::string_view kSuffix = ".safetensors";
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix) ||
      name.size() <= kPrefix.size() + kSuffix.size())
    return -1;
  name.remove_prefix(kPrefix.size());
  name.remove_suffix(kSuffix.size());
  return ParseDecimalName(name, std::numeric_limits<int32_t>::max());
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
            RankFileName(static_cast<int64_t>(r)), RankFileName(ranks.back()));
  if (ranks.empty()) Throw(ErrorKind::kNotFound, "{}/{}: no such file", folder, RankFileName(0));
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

std::string RankFileName(int64_t rank) { return fmt::format("rank{}.safetensors", rank); }

ExpertStatistics ReadStatistics(const std::string& folder, const ReadStatisticsOptions& options) {
  if (!IsDirectory(folder)) Throw(ErrorKind::kNotFound, "{}: no such folder", folder);
  const std::string meta_path = folder + "/" + kMetaName;
  const std::string meta = ReadFile(meta_path, kMaxSettingsBytes);
  std::vector<SafetensorsFile> files;
  const int64_t num_ranks = CountRankFiles(folder);
  for (int64_t r = 0; r < num_ranks; ++r) files.emplace_back(folder + "/" + RankFileName(r));
  return ParseStatistics(meta, meta_path, files, options);
}

void CheckStatisticsFolder(const std::string& folder, ExistingFolder existing) {
  const std::string path = WithoutTrailingSlash(folder);
  CheckFolderWritable(path);
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
    WriteRank(writer.PathOf(RankFileName(r)), statistics, r);
  writer.Commit();
}

}  // namespace wideload::statistics
