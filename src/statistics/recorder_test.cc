#include "statistics/recorder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/error.h"

namespace wideload::statistics {
namespace {

using ::testing::HasSubstr;

RecorderOptions SmallOptions() {
  return {.num_ranks = 2,
          .layers = {1, 4},
          .num_experts = 3,
          .experts_per_token = 2,
          .range = {10, 20}};
}

void RecordAll(Recorder& recorder, int64_t first, int64_t last) {
  for (int64_t i = first; i < last; ++i)
    for (int32_t r = 0; r < 2; ++r) {
      const auto n = static_cast<int32_t>(i);
      recorder.Record(EpRank(r), i, LayerId(1), std::vector<int32_t>{n, r, 0});
      recorder.Record(EpRank(r), i, LayerId(4), std::vector<int32_t>{0, 0, 7});
      recorder.Record(EpRank(r), i, LayerId(4), std::vector<int32_t>{0, 1, 7});  // second chunk
      recorder.EndIteration(EpRank(r), i);
    }
}

TEST(Recorder, KeepsTheIterationsOfItsRange) {
  Recorder recorder(SmallOptions());
  EXPECT_FALSE(recorder.Wants(9));
  EXPECT_TRUE(recorder.Wants(10));
  EXPECT_FALSE(recorder.Wants(20));
  RecordAll(recorder, 0, 25);
  const ExpertStatistics statistics = recorder.Statistics();
  EXPECT_EQ(statistics.iter_start, 10);
  EXPECT_EQ(statistics.num_iterations, 10);
  EXPECT_TRUE(std::ranges::equal(statistics.Row(3, 0, 1), std::vector<int64_t>{13, 1, 0}));
  EXPECT_TRUE(std::ranges::equal(statistics.Row(3, 1, 0), std::vector<int64_t>{0, 1, 14}));
  EXPECT_EQ(recorder.num_dropped(), 0);
}

TEST(Recorder, GoesOnAfterItWasSwitchedOff) {
  RecorderOptions options = SmallOptions();
  options.range = {};
  options.max_bytes = int64_t{32} << 20;
  Recorder recorder(options);
  RecordAll(recorder, 5, 8);
  RecordAll(recorder, 11, 13);
  const ExpertStatistics statistics = recorder.Statistics();
  EXPECT_EQ(statistics.iter_start, 5);
  EXPECT_EQ(statistics.num_iterations, 8);
  EXPECT_TRUE(std::ranges::equal(statistics.Row(2, 0, 1), std::vector<int64_t>{7, 1, 0}));
  for (const int64_t left_out : {3, 4, 5})
    EXPECT_TRUE(std::ranges::equal(statistics.Row(left_out, 1, 0), std::vector<int64_t>{0, 0, 0}));
  EXPECT_TRUE(std::ranges::equal(statistics.Row(6, 0, 0), std::vector<int64_t>{11, 0, 0}));
  RecordAll(recorder, 1'000'000, 1'000'001);  // many blocks later
  EXPECT_EQ(recorder.Statistics().num_iterations + recorder.num_dropped(), 999'996);
}

TEST(Recorder, WritesWhatAllRanksEndedWhenTheRunStopsEarly) {
  Recorder recorder(SmallOptions());
  RecordAll(recorder, 10, 13);
  recorder.Record(EpRank(0), 13, LayerId(1), std::vector<int32_t>{5, 5, 5});
  recorder.EndIteration(EpRank(0), 13);  // rank 1 never did
  std::string pattern = ::testing::TempDir() + "recorder_XXXXXX";
  ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
  recorder.Write(pattern + "/run", ExistingFolder::kRefuse);
  const ExpertStatistics read = ReadStatistics(pattern + "/run", {.sum_ranks = false});
  std::filesystem::remove_all(pattern);
  EXPECT_EQ(read.num_iterations, 3);
  EXPECT_EQ(read, recorder.Statistics());
}

TEST(Recorder, RefusesToWriteNothing) {
  Recorder recorder(SmallOptions());
  RecordAll(recorder, 0, 10);
  EXPECT_THROW(recorder.Write(::testing::TempDir() + "never", ExistingFolder::kRefuse), Error);
}

TEST(Recorder, GrowsOverBlocksAndStopsAtItsMemory) {
  RecorderOptions options = SmallOptions();
  options.range = {};
  options.max_bytes = int64_t{32} << 20;
  options.num_experts = 100000;  // 800 kB an iteration: five to a block
  options.max_bytes = 2 * 12 * 800000;
  Recorder recorder(options);
  std::vector<int32_t> counts(100000, 0);
  for (int64_t i = 7; i < 22; ++i)
    for (int32_t r = 0; r < 2; ++r) {
      counts[99999] = static_cast<int32_t>(i);
      recorder.Record(EpRank(r), i, LayerId(4), counts);
      recorder.EndIteration(EpRank(r), i);
    }
  const ExpertStatistics statistics = recorder.Statistics();
  EXPECT_EQ(statistics.iter_start, 7);
  EXPECT_EQ(statistics.num_iterations, 12);
  EXPECT_EQ(recorder.num_dropped(), 3);
  for (int64_t i = 0; i < 12; ++i) EXPECT_EQ(statistics.Row(i, 1, 1).back(), 7 + i);
}

TEST(Recorder, CanBeReadWhileRanksRecord) {
  RecorderOptions options = SmallOptions();
  options.range = {};
  options.max_bytes = int64_t{32} << 20;
  Recorder recorder(options);
  constexpr int64_t kIterations = 20000;
  std::vector<std::jthread> ranks;
  for (int32_t r = 0; r < 2; ++r)
    ranks.emplace_back([&, r] {
      for (int64_t i = 0; i < kIterations; ++i) {
        recorder.Record(EpRank(r), i, LayerId(1), std::vector<int32_t>{1, 2, 3});
        recorder.EndIteration(EpRank(r), i);
      }
    });
  for (int64_t seen = 0; seen < kIterations;) {
    const ExpertStatistics statistics = recorder.Statistics();
    EXPECT_GE(statistics.num_iterations, seen);
    seen = statistics.num_iterations;
    if (seen > 0) {
      EXPECT_EQ(statistics.Row(seen - 1, 0, 1)[2], 3);
    }
  }
}

std::string RangeRefusal(const std::string& text) {
  try {
    ParseIterationRange(text, "EXPERT_STATISTIC_ITER_RANGE");
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

TEST(ParseIterationRange, TakesStartAndStop) {
  EXPECT_EQ(ParseIterationRange("100-150", "x"), (IterationRange{100, 150}));
  for (const char* bad : {"", "5", "5-", "-5", "5-5", "6-5", "a-b", "1-2x", "1-2-3", "1--2",
                          "99999999999999999999-5"})
    EXPECT_THAT(RangeRefusal(bad), HasSubstr("EXPERT_STATISTIC_ITER_RANGE is \"")) << bad;
}

TEST(ChooseRecordSettings, LetsFlagsWinOverTheEnvironment) {
  EXPECT_FALSE(ChooseRecordSettings({}));
  EXPECT_FALSE(ChooseRecordSettings({.environment_path = ""}));
  const auto both = ChooseRecordSettings(
      {.flag_path = "a", .flag_range = "1-2", .environment_path = "b", .environment_range = "3-4"});
  EXPECT_EQ(both->path, "a");
  EXPECT_EQ(both->range, (IterationRange{1, 2}));
  const auto environment =
      ChooseRecordSettings({.environment_path = "b", .environment_range = "3-4"});
  EXPECT_EQ(environment->path, "b");
  EXPECT_EQ(environment->range, (IterationRange{3, 4}));
  EXPECT_EQ(ChooseRecordSettings({.flag_path = "a"})->range, IterationRange());
  EXPECT_THROW(ChooseRecordSettings({.environment_range = "3-4"}), Error);
}

}  // namespace
}  // namespace wideload::statistics
