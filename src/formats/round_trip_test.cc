// What is written for other engines can be read, and says the same: every writer against its
// reader, over random tables and placements.
#include <gtest/gtest.h>

#include "formats/npy.h"
#include "formats/placement_file.h"
#include "formats/read_recording.h"
#include "formats/sglang_dump.h"
#include "formats/testing.h"
#include "formats/vllm_files.h"
#include "statistics/testing.h"

namespace wideload::formats {
namespace {

using statistics::Dice;
using statistics::EplbConfig;
using statistics::LoadTable;

constexpr int kRounds = 200;

// Some have batches.
LoadTable RandomTable(Dice& dice) {
  const int32_t num_experts = dice.Between(1, 40);
  LoadTable table = statistics::RandomLoads(dice, dice.Between(1, 6), num_experts, 50);
  const int32_t num_batches = dice.Between(0, 4);
  if (num_batches == 0) return table;
  const LoadTable total = std::exchange(table, {});
  for (int32_t i = 0; i < num_batches; ++i)
    for (const auto& [layer, loads] : total.layers) {
      std::vector<double> batch;
      for (int32_t e = 0; e < num_experts; ++e) batch.push_back(dice.Load());
      AddBatch(table, layer, std::move(batch));
    }
  return table;
}

// As many slots as some number of ranks can share.
EplbConfig RandomPlacement(Dice& dice, int32_t ep_size) {
  const int32_t num_slots = ep_size * dice.Between(1, 20);
  return statistics::RandomPlan(dice, dice.Between(1, 6), dice.Between(1, num_slots), num_slots,
                                50);
}

// The rows of `values` numbered from 0.
template <class T>
std::map<int32_t, T> Numbered(const std::map<int32_t, T>& values) {
  std::map<int32_t, T> rows;
  for (const auto& [layer, value] : values) rows.emplace(static_cast<int32_t>(rows.size()), value);
  return rows;
}

// Layers that are not there are rows that `lacking` gives.
template <class T>
std::map<int32_t, T> Filled(std::map<int32_t, T> values, const T& lacking) {
  for (int32_t l = values.rbegin()->first; l >= 0; --l) values.try_emplace(l, lacking);
  return values;
}

// An array of one batch is one without batches.
std::map<int32_t, std::vector<std::vector<double>>> BatchesOf(const LoadTable& table) {
  std::map<int32_t, std::vector<std::vector<double>>> batches = table.batches;
  for (const auto& [layer, loads] : table.layers) batches.try_emplace(layer, 1, loads);
  return batches;
}

TEST(RoundTrip, LoadsForVllm) {
  Dice dice(11);
  for (int i = 0; i < kRounds; ++i) {
    const LoadTable table = RandomTable(dice);
    const int32_t ep_size = dice.Between(1, 64);
    const VllmFile file = ParseVllmJsonl(FormatVllmStatistics(table, ep_size), "loads.jsonl");
    ASSERT_TRUE(file.recording);
    EXPECT_EQ(file.recording->ep_size, ep_size);
    EXPECT_EQ(file.recording->loads.layers, Numbered(table.layers));
    EXPECT_EQ(BatchesOf(file.recording->loads), Numbered(BatchesOf(table)));
  }
}

TEST(RoundTrip, LoadsForSglang) {
  Dice dice(12);
  for (int i = 0; i < kRounds; ++i) {
    const LoadTable table = RandomTable(dice);
    const std::vector<double> none(static_cast<size_t>(table.num_experts), 0);
    const auto read = [&](bool keep_steps) {
      const NamedDocument dump{"d.json",
                               ParseJsonDocument(FormatSglangCounts(table, keep_steps), "d.json")};
      return RecordingOfSglang({&dump, 1}, "d.json").loads;
    };
    EXPECT_EQ(read(false).layers, Filled(table.layers, none));
    const LoadTable steps = read(true);
    EXPECT_EQ(steps.layers, Filled(table.layers, none));
    const std::vector<std::vector<double>> none_in_any(BatchesOf(table).begin()->second.size(),
                                                       none);
    EXPECT_EQ(BatchesOf(steps), Filled(BatchesOf(table), none_in_any));
  }
}

TEST(RoundTrip, PlacementsForVllm) {
  Dice dice(13);
  for (int i = 0; i < kRounds; ++i) {
    const EplbConfig config = RandomPlacement(dice, 1);
    const VllmFile file = ParseVllmJsonl(FormatVllmMapping(config), "m.jsonl");
    ASSERT_TRUE(file.mapping);
    EXPECT_EQ(file.mapping->num_slots, config.num_slots);
    EXPECT_EQ(file.mapping->layers, Numbered(config.layers));
  }
}

TEST(RoundTrip, PlacementsForAscend) {
  Dice dice(14);
  for (int i = 0; i < kRounds; ++i) {
    const int32_t ep_size = dice.Between(1, 8);
    const EplbConfig config = RandomPlacement(dice, ep_size);
    const PlacementFile file =
        AscendPlacement(ParseJsonDocument(FormatAscendMap(config, ep_size), "m.json"), "m.json");
    EXPECT_EQ(file.config.planned_ep_size, ep_size);
    EXPECT_EQ(file.config.num_slots, config.num_slots);
    EXPECT_EQ(file.config.layers, Numbered(config.layers));
  }
}

TEST(RoundTrip, PlacementsForSglang) {
  Dice dice(15);
  for (int i = 0; i < kRounds; ++i) {
    const EplbConfig config = RandomPlacement(dice, 1);
    std::vector<int32_t> contiguous;
    for (int32_t s = 0; s < config.num_slots; ++s) contiguous.push_back(s % config.num_experts());
    const NamedDocument dump{"p.json", ParseJsonDocument(FormatSglangPlacement(config), "p.json")};
    EXPECT_EQ(SglangPlacement(dump), Filled(config.layers, contiguous));
  }
}

TEST(RoundTrip, ArraysOfAnyShapeAsNpy) {
  Dice dice(16);
  for (int i = 0; i < kRounds; ++i) {
    NumberArray array{.shape = {}};
    int64_t elements = 1;
    for (int d = dice.Between(0, 4); d > 0; --d) {
      array.shape.push_back(dice.Between(d == 1 ? 0 : 1, 7));
      elements *= array.shape.back();
    }
    const bool of_integers = dice.Between(0, 1) == 1;
    for (int64_t e = 0; e < elements; ++e)
      array.values.push_back(of_integers ? dice.Between(-9, 1 << 30) : dice.Load() - 0.5);
    array.of_integers = of_integers || elements == 0;
    EXPECT_EQ(ParseNpy(BytesOf(FormatNpy(array)), "a.npy"), array);
  }
}

// The widest layer and the most layers that the readers take.
TEST(RoundTrip, TheLargestThatCanBeRead) {
  Dice dice(17);
  constexpr int32_t kWide = statistics::kMaxEplbSlots;
  constexpr int32_t kMany = statistics::kMaxEplbLayers;
  for (const EplbConfig& config : {statistics::RandomPlan(dice, 1, kWide, kWide, 1),
                                   statistics::RandomPlan(dice, kMany, 2, 3, kMany)}) {
    EXPECT_EQ(ParseVllmJsonl(FormatVllmMapping(config), "m.jsonl").mapping->layers, config.layers);
    EXPECT_EQ(AscendPlacement(ParseJsonDocument(FormatAscendMap(config, 1), "m.json"), "m.json")
                  .config.layers,
              config.layers);
    const NamedDocument dump{"p.json", ParseJsonDocument(FormatSglangPlacement(config), "p.json")};
    EXPECT_EQ(SglangPlacement(dump), config.layers);
  }
  for (const LoadTable& table : {statistics::RandomLoads(dice, 1, statistics::kMaxTableExperts, 1),
                                 statistics::RandomLoads(dice, kMany, 2, kMany)}) {
    const NamedDocument dump{"d.json",
                             ParseJsonDocument(FormatSglangCounts(table, false), "d.json")};
    EXPECT_EQ(RecordingOfSglang({&dump, 1}, "d.json").loads.layers, table.layers);
    EXPECT_EQ(ParseVllmJsonl(FormatVllmStatistics(table, 1), "l.jsonl").recording->loads.layers,
              table.layers);
  }
}

// A file that is read is one whose plan, as EPLB YAML, is read.
TEST(RoundTrip, NothingIsReadThatCouldNotBeWritten) {
  constexpr int32_t kLast = statistics::kMaxEplbLayers - 1;
  const auto csv = [](int32_t layer) {
    return RefusalOf(
        [&] { ParseCsvRecording(fmt::format("layer,expert,count\n{},0,1\n", layer), "x.csv"); });
  };
  const auto vllm = [](const std::string& layers) {
    return RefusalOf([&] {
      ParseVllmJsonl(fmt::format("{{\"record_type\":\"eplb_initial_mapping\",\"version\":1,"
                                 "\"num_slots\":1,\"num_redundant_experts\":0,"
                                 "\"initial_global_assignments\":{{{}}}}}",
                                 layers),
                     "x.jsonl");
    });
  };
  const auto ascend = [](int32_t layer) {
    const std::string json = fmt::format(
        "{{\"moe_layer_count\":1,\"layer_list\":[{{\"layer_id\":{},\"device_count\":1,"
        "\"device_list\":[{{\"device_id\":0,\"device_expert\":[0]}}]}}]}}",
        layer);
    return RefusalOf([&] { AscendPlacement(ParseJsonDocument(json, "x.json"), "x.json"); });
  };
  const std::string accepted = "accepted";
  EXPECT_EQ(csv(kLast), accepted);
  EXPECT_NE(csv(kLast + 1), accepted);
  EXPECT_EQ(vllm(fmt::format("\"{}\":[0]", kLast)), accepted);
  EXPECT_NE(vllm(fmt::format("\"{}\":[0]", kLast + 1)), accepted);
  EXPECT_NE(vllm("\"0\":[0],\"00\":[0]"), accepted);
  EXPECT_EQ(ascend(kLast), accepted);
  EXPECT_NE(ascend(kLast + 1), accepted);
}

// A few numbers with a high layer: rows for all layers below it would be gigabytes.
TEST(RoundTrip, NoRowsForVeryManyLayersThatAreNotThere) {
  const LoadTable table{.num_experts = statistics::kMaxTableExperts,
                        .layers = {{8000, std::vector<double>(statistics::kMaxTableExperts, 1)}}};
  EXPECT_NE(RefusalOf([&] { FormatSglangCounts(table, false); }).find("layers 0 to 8000"),
            std::string::npos);
  const EplbConfig config{.num_slots = 60'000, .layers = {{8000, std::vector<int32_t>(60'000)}}};
  EXPECT_NE(RefusalOf([&] { FormatSglangPlacement(config); }).find("layers 0 to 8000"),
            std::string::npos);
}

}  // namespace
}  // namespace wideload::formats
