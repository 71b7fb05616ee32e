// What is written can be read, and says the same: every writer against its reader, over random
// tables and the largest that any reader takes.
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "statistics/eplb_yaml.h"
#include "statistics/load_files.h"
#include "statistics/statistics_folder.h"
#include "statistics/testing.h"

namespace wideload::statistics {
namespace {

constexpr int kRounds = 200;

void ExpectReadsLoads(const LoadTable& table) {
  EXPECT_EQ(ParseLoadCsv(FormatLoadCsv(table), "loads.csv"), table);
}

// With what only this format holds.
void ExpectReadsPlan(Dice& dice, EplbConfig config) {
  config.layer_updates_per_iter = dice.Between(0, 3);
  if (dice.Between(0, 1) == 1) config.planned_ep_size = dice.Between(1, 64);
  EXPECT_EQ(ParseEplbYaml(FormatEplbYaml(config), "plan.yaml"), config);
}

TEST(RoundTrip, LoadsOfAnyShape) {
  Dice dice(1);
  for (int i = 0; i < kRounds; ++i)
    ExpectReadsLoads(RandomLoads(dice, dice.Between(1, 6), dice.Between(1, 40), 50));
}

TEST(RoundTrip, PlansOfAnyShape) {
  Dice dice(2);
  for (int i = 0; i < kRounds; ++i) {
    const int32_t num_experts = dice.Between(1, 40);
    ExpectReadsPlan(dice, RandomPlan(dice, dice.Between(1, 6), num_experts,
                                     num_experts + dice.Between(0, 40), 50));
  }
}

TEST(RoundTrip, TheLargestThatCanBeRead) {
  Dice dice(3);
  ExpectReadsLoads(RandomLoads(dice, kMaxEplbLayers, 2, kMaxEplbLayers));
  ExpectReadsLoads(RandomLoads(dice, 1, kMaxTableExperts, 2));
  ExpectReadsPlan(dice, RandomPlan(dice, kMaxEplbLayers, 2, 3, kMaxEplbLayers));
  ExpectReadsPlan(dice, RandomPlan(dice, 1, kMaxEplbSlots, kMaxEplbSlots, 2));
}

// A table that is read is one whose plan and other spellings are read: the limits are the same.
TEST(RoundTrip, NothingIsReadThatCouldNotBeWritten) {
  const auto rows = [](int32_t num_layers) {
    std::string text;
    for (int32_t l = 0; l < num_layers; ++l) text += "1,2\n";
    return text;
  };
  EXPECT_NO_THROW(ParseLoadCsv(rows(kMaxEplbLayers), "x.csv"));
  EXPECT_THROW(ParseLoadCsv(rows(kMaxEplbLayers + 1), "x.csv"), Error);
  EXPECT_THROW(ParseLoadCsv(fmt::format("layer,0\n{},1\n", kMaxEplbLayers), "x.csv"), Error);
  EXPECT_THROW(ParseEplbYaml(fmt::format("num_slots: 1\ninitial_global_assignments:\n  {}: [0]\n",
                                         kMaxEplbLayers),
                             "x.yaml"),
               Error);
  EXPECT_EQ(kMaxEplbSlots, kMaxTableExperts);
}

TEST(RoundTrip, StatisticsOfAnyShape) {
  Dice dice(4);
  const auto folder =
      std::filesystem::temp_directory_path() / fmt::format("wideload_round_trip.{}", ::getpid());
  for (int i = 0; i < 20; ++i) {
    ExpertStatistics written{.num_experts = dice.Between(1, 9),
                             .experts_per_token = 1,
                             .ep_size = dice.Between(2, 4),
                             .iter_start = dice.Between(0, 1000),
                             .num_iterations = dice.Between(1, 5)};
    written.layers = dice.Layers(dice.Between(1, 4), i == 0 ? kMaxEplbLayers : 20);
    written.num_ranks = written.ep_size;
    written.counts.resize(written.RowOffset(written.num_iterations, 0, 0));
    for (int64_t& count : written.counts) count = dice.Between(0, 1 << 30);
    WriteStatistics(folder.string(), written, ExistingFolder::kReplace);
    EXPECT_EQ(ReadStatistics(folder.string(), {.sum_ranks = false}), written);
  }
  std::filesystem::remove_all(folder);
}

TEST(RoundTrip, TensorsOfAnyNameAndShape) {
  Dice dice(5);
  const auto path = (std::filesystem::temp_directory_path() /
                     fmt::format("wideload_round_trip.{}.safetensors", ::getpid()))
                        .string();
  const std::vector<std::byte> bytes(4096, std::byte{7});
  constexpr std::array<DType, 4> kTypes = {DType::kF64, DType::kI64, DType::kBF16, DType::kU8};
  for (int i = 0; i < kRounds; ++i) {
    std::vector<std::pair<std::string, TensorView>> tensors;
    for (int t = 0; t < dice.Between(0, 5); ++t) {
      std::string name = fmt::format("{}", t);
      for (int c = dice.Between(0, 6); c > 0; --c)
        name += std::string_view("a\"\\\n\t/{}.\x7f")[static_cast<size_t>(dice.Between(0, 9))];
      std::vector<int64_t> dims;
      for (int d = dice.Between(0, Shape::kMaxRank); d > 0; --d) dims.push_back(dice.Between(0, 3));
      const DType type = kTypes[static_cast<size_t>(dice.Between(0, 3))];
      if (Shape(dims).num_elements() <= 512)
        tensors.emplace_back(name, TensorView(type, Shape(dims), bytes.data()));
    }
    WriteSafetensors(path, tensors);
    const SafetensorsFile file(path);
    ASSERT_EQ(file.tensors().size(), tensors.size());
    for (const auto& [name, view] : tensors)
      EXPECT_EQ(file.Get(name, view.dtype(), view.shape()).num_bytes(), view.num_bytes());
  }
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace wideload::statistics
