#include "statistics/statistics_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"

namespace wideload::statistics {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Tensors = std::vector<std::pair<std::string, std::vector<int64_t>>>;

std::string Small() {
  return std::string(std::getenv("WIDELOAD_SOURCE_DIR")) + "/testdata/statistics/small";
}

// A folder of its own that is removed with the test.
class StatisticsFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "statistics_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    folder_ = root_ + "/run";
  }
  void TearDown() override { fs::remove_all(root_); }

  void WriteRank(int rank, const Tensors& tensors) {
    fs::create_directories(folder_);
    std::vector<std::pair<std::string, TensorView>> views;
    for (const auto& [name, values] : tensors)
      views.emplace_back(name, TensorView(DType::kI64, Shape{std::ssize(values)}, values.data()));
    WriteSafetensors(folder_ + "/rank" + std::to_string(rank) + ".safetensors", views);
    WriteFileWhole(folder_ + "/meta_info.json",
                   R"({"num_experts": 2, "num_experts_per_token": 1})");
  }
  std::string Refusal(const ReadStatisticsOptions& options = {}) {
    try {
      ReadStatistics(folder_, options);
    } catch (const Error& e) {
      return e.what();
    }
    return "accepted";
  }

  std::string root_;
  std::string folder_;
};

TEST_F(StatisticsFolder, ReadsARecordedFolder) {
  const ExpertStatistics statistics = ReadStatistics(Small(), {.sum_ranks = false});
  EXPECT_EQ(statistics.num_experts, 32);
  EXPECT_EQ(statistics.experts_per_token, 4);
  EXPECT_EQ(statistics.ep_size, 4);
  EXPECT_EQ(statistics.iter_start, 100);
  EXPECT_EQ(statistics.iter_stop(), 106);
  EXPECT_EQ(statistics.layers, (std::vector<int32_t>{3, 4, 7}));
  EXPECT_EQ(ReadStatistics(Small(), {}), SumRanks(statistics));
}

TEST_F(StatisticsFolder, WritesTheSameBytesAsItRead) {
  WriteStatistics(folder_ + "/", ReadStatistics(Small(), {.sum_ranks = false}),
                  ExistingFolder::kRefuse);
  for (const char* name : {"meta_info.json", "rank0.safetensors", "rank3.safetensors"})
    EXPECT_EQ(ReadFile(folder_ + "/" + name), ReadFile(Small() + "/" + name)) << name;
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 5);
  EXPECT_EQ(std::distance(fs::directory_iterator(root_), {}), 1);
}

TEST_F(StatisticsFolder, ReadsAWindow) {
  const ExpertStatistics all = ReadStatistics(Small(), {});
  const ExpertStatistics window = ReadStatistics(Small(), {.iter_start = 101, .iter_stop = 105});
  EXPECT_EQ(window.num_iterations, 4);
  EXPECT_TRUE(std::ranges::equal(window.Row(0, 2, 0), all.Row(1, 2, 0)));
  EXPECT_THROW(ReadStatistics(Small(), {.iter_start = 99}), Error);
  EXPECT_THROW(ReadStatistics(Small(), {.iter_stop = 107}), Error);
  EXPECT_THROW(ReadStatistics(Small(), {.iter_start = 103, .iter_stop = 103}), Error);
}

TEST_F(StatisticsFolder, RefusesAnotherRunsFilesOrReplacesThemWhole) {
  WriteRank(9, {{"0_0", {1, 2}}});
  const ExpertStatistics statistics = ReadStatistics(Small(), {.sum_ranks = false});
  EXPECT_THROW(WriteStatistics(folder_, statistics, ExistingFolder::kRefuse), Error);
  EXPECT_TRUE(FileExists(folder_ + "/rank9.safetensors"));
  WriteStatistics(folder_, statistics, ExistingFolder::kReplace);
  EXPECT_FALSE(FileExists(folder_ + "/rank9.safetensors"));
  EXPECT_EQ(ReadStatistics(folder_, {.sum_ranks = false}), statistics);
  EXPECT_EQ(std::distance(fs::directory_iterator(root_), {}), 1);
}

TEST_F(StatisticsFolder, NeverReplacesForeignFiles) {
  fs::create_directories(folder_);
  WriteFileWhole(folder_ + "/notes.txt", "mine");
  EXPECT_THROW(CheckStatisticsFolder(folder_, ExistingFolder::kReplace), Error);
  EXPECT_THROW(CheckStatisticsFolder(root_ + "/no/such", ExistingFolder::kReplace), Error);
  EXPECT_THROW(CheckStatisticsFolder(folder_ + "/notes.txt", ExistingFolder::kReplace), Error);
  fs::remove(folder_ + "/notes.txt");
  EXPECT_NO_THROW(CheckStatisticsFolder(folder_, ExistingFolder::kRefuse));
}

TEST_F(StatisticsFolder, RefusesByNameWhatIsNotAGrid) {
  EXPECT_THAT(Refusal(), HasSubstr("no such folder"));
  WriteRank(0, {{"4_0", {1, 2}}, {"6_0", {1, 2}}});
  EXPECT_THAT(Refusal(), HasSubstr("rank0.safetensors: iteration 5 is missing"));
  WriteRank(0, {{"4_0", {1, 2}}, {"4_2", {1, 2}}, {"5_2", {1, 2}}});
  EXPECT_THAT(Refusal(), HasSubstr("has no tensor 5_0"));
  WriteRank(0, {{"4_0", {1, 2}}, {"5_00", {1, 2}}});
  EXPECT_THAT(Refusal(), HasSubstr("tensor \"5_00\"; names must be"));
  WriteRank(0, {});
  EXPECT_THAT(Refusal(), HasSubstr("holds no iteration"));
  WriteRank(0, {{"4_0", {1, 2}}});
  WriteRank(2, {{"4_0", {1, 2}}});
  EXPECT_THAT(Refusal(), HasSubstr("rank1.safetensors: no such file"));
  WriteRank(1, {{"4_0", {1, 2}}, {"4_1", {1, 2}}});
  EXPECT_THAT(Refusal(), HasSubstr("rank1.safetensors: has tensor 4_1, which"));
  WriteRank(0, {{"4_0", {1, 2}}, {"4_1", {1, 2}}});
  WriteRank(1, {{"4_1", {1, 2}}});
  EXPECT_THAT(Refusal(), HasSubstr("rank1.safetensors: has no tensor 4_0, which"));
}

TEST_F(StatisticsFolder, LooksAtTheWindowAlone) {
  WriteRank(0, {{"4_0", {1, 2}}, {"5_0", {3, 4}}, {"6_0", {5, 6}}});
  WriteRank(1, {{"4_0", {1, 2}}, {"5_0", {3, 4}}});
  EXPECT_THAT(Refusal(), HasSubstr("rank1.safetensors: iteration 6 is missing"));
  EXPECT_EQ(ReadStatistics(folder_, {.iter_stop = 6}).counts, (std::vector<int64_t>{2, 4, 6, 8}));
}

TEST_F(StatisticsFolder, AddsPipelineStagesWithLayersOfTheirOwn) {
  WriteRank(0, {{"4_0", {1, 2}}});
  WriteRank(1, {{"4_0", {3, 4}}});
  WriteRank(2, {{"4_1", {5, 6}}});
  WriteRank(3, {{"4_1", {7, 8}}});
  const ExpertStatistics sums = ReadStatistics(folder_, {});
  EXPECT_EQ(sums.layers, (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(sums.counts, (std::vector<int64_t>{4, 6, 12, 14}));
  EXPECT_EQ(sums.ep_size, 4);  // as TensorRT-LLM's loader has it
  EXPECT_EQ(sums.ranks_per_layer, 2);
  EXPECT_EQ(ReadStatistics(folder_, {.sum_ranks = false}).counts,
            (std::vector<int64_t>{1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 5, 6, 7, 8}));
}

TEST_F(StatisticsFolder, NoticesThatAStageLacksRanks) {
  WriteRank(0, {{"4_0", {1, 2}}});
  WriteRank(1, {{"4_0", {3, 4}}});
  WriteRank(2, {{"4_1", {5, 6}}});
  EXPECT_THAT(Refusal(), HasSubstr("2 of the rank files beside it have layer 0, but 1 have layer "
                                   "1; files of a pipeline stage are missing"));
}

TEST_F(StatisticsFolder, ReadsCountsOf32Bits) {
  WriteRank(0, {{"4_0", {1, 2}}});
  const std::vector<int32_t> counts = {7, 9};
  WriteSafetensors(folder_ + "/rank0.safetensors",
                   std::vector<std::pair<std::string, TensorView>>{
                       {"4_0", TensorView(DType::kI32, Shape{2}, counts.data())}});
  EXPECT_EQ(ReadStatistics(folder_, {}).counts, (std::vector<int64_t>{7, 9}));
}

TEST_F(StatisticsFolder, NamesTheRanksThatAreMissing) {
  WriteRank(0, {{"4_0", {1, 2}}});
  WriteFileWhole(folder_ + "/meta_info.json",
                 R"({"num_experts": 2, "num_experts_per_token": 1, "ep_size": 3})");
  EXPECT_THAT(Refusal(), HasSubstr("missing: rank1.safetensors to rank2.safetensors"));
}

TEST_F(StatisticsFolder, RefusesByNameWhatAreNotCounts) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  WriteRank(0, {{"4_0", {1, 2, 3}}});
  EXPECT_THAT(Refusal(), HasSubstr("tensor 4_0 is I64 [3]; it must be I64 [2] or I32 [2]"));
  WriteRank(0, {{"4_0", {1, -2}}});
  EXPECT_THAT(Refusal(), HasSubstr("tensor 4_0 counts -2 for expert 1"));
  WriteRank(0, {{"4_0", {1, kMost}}});
  WriteRank(1, {{"4_0", {1, 1}}});
  EXPECT_THAT(Refusal(), HasSubstr("add up to more than"));
  WriteFileWhole(folder_ + "/meta_info.json", "{\"num_experts\": 2}");
  EXPECT_THAT(Refusal(), HasSubstr("meta_info.json: num_experts_per_token"));
}

}  // namespace
}  // namespace wideload::statistics
