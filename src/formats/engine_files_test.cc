#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/document.h"
#include "formats/engine.h"
#include "formats/placement_file.h"
#include "formats/read_recording.h"
#include "formats/sglang_dump.h"
#include "formats/testing.h"
#include "formats/vllm_files.h"

namespace wideload::formats {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Loads = std::vector<double>;

Recording Sglang(const std::string& json) {
  const NamedDocument dump{"d.json", ParseJsonDocument(json, "d.json")};
  return RecordingOfSglang({&dump, 1}, "d.json");
}

TEST(SglangDump, KeepsTheStepsOfStat) {
  const Recording recording = Sglang(R"({"logical_count": [[[1, 2], [4, 3]], [[2, 2], [1, 5]]]})");
  EXPECT_EQ(recording.loads.layers.at(0), (Loads{3, 4}));
  EXPECT_THAT(recording.loads.batches.at(1), ElementsAre(Loads{4, 3}, Loads{1, 5}));
  EXPECT_EQ(recording.engine, Engine::kSglang);
}

TEST(SglangDump, MapsThePassesOfAllRanksToExperts) {
  const std::string json = R"({"records": [
    {"forward_pass_id": 7, "rank": 0, "gatherer_key": "primary", "global_physical_count": [[1, 2, 3]]},
    {"forward_pass_id": 7, "rank": 1, "gatherer_key": "primary", "global_physical_count": [[10, 0, 0]]},
    {"forward_pass_id": 9, "rank": 0, "gatherer_key": "primary", "global_physical_count": [[0, 0, 5]]}],
    "last_physical_to_logical_map": [[1, 0, 1]]})";
  const Recording recording = Sglang(json);
  EXPECT_THAT(recording.loads.batches.at(0), ElementsAre(Loads{2, 14}, Loads{0, 5}));
  EXPECT_THAT(recording.slot_loads->batches.at(0), ElementsAre(Loads{11, 2, 3}, Loads{0, 0, 5}));
  EXPECT_THAT(recording.steps, ElementsAre(7, 9));
  EXPECT_EQ(recording.ep_size, 0);  // who recorded is not how many there were
  EXPECT_THAT(recording.notes, ::testing::Contains(HasSubstr("ranks 0 to 1 are added up")));
  EXPECT_TRUE(recording.phases.empty());
  std::string gap = json;
  gap.replace(gap.find("\"rank\": 1"), 9, "\"rank\": 3");
  EXPECT_THAT(Sglang(gap).notes, ::testing::Contains(HasSubstr("ranks 1, 2 are missing")));
}

TEST(SglangDump, CountsTokensAndTellsPrefillFromDecode) {
  // layer 0 is dense; the second token of the first pass chose one expert
  const std::string json = R"({"records": [
    {"forward_pass_id": 0, "rank": 0, "forward_mode": 1,
     "topk_ids_of_layer": [[[-1, -1], [-1, -1]], [[0, 2], [1, -1]]]},
    {"forward_pass_id": 1, "rank": 0, "forward_mode": 2,
     "topk_ids_of_layer": [[[-1, -1]], [[2, 1]]]}],
    "last_physical_to_logical_map": [[0, 1, 0], [0, 1, 0]]})";
  Recording recording = Sglang(json);
  EXPECT_THAT(recording.loads.batches.at(1), ElementsAre(Loads{2, 1}, Loads{1, 1}));
  EXPECT_THAT(recording.loads.batches.at(0), ElementsAre(Loads{0, 0}, Loads{0, 0}));
  EXPECT_THAT(recording.phases, ElementsAre(Phase::kPrefill, Phase::kDecode));
  EXPECT_EQ(recording.top_k, 2);
  KeepPhase(Phase::kDecode, "--phase", recording);
  EXPECT_EQ(recording.loads.layers.at(1), (Loads{1, 1}));
  EXPECT_THAT(RefusalOf([&] { KeepPhase(Phase::kMixed, "--phase", recording); }),
              HasSubstr("--phase is mixed; d.json has no batch of it"));
}

TEST(SglangDump, WritesWhatItReads) {
  statistics::LoadTable table;
  AddBatch(table, 0, {1, 2});
  AddBatch(table, 0, {3, 0.5});
  EXPECT_EQ(Sglang(FormatSglangCounts(table, true)).loads, table);
  EXPECT_EQ(Sglang(FormatSglangCounts(table, false)).loads.layers, table.layers);
  EXPECT_EQ(FormatSglangCounts({.num_experts = 2, .layers = {{1, {1, 2.5}}}}, true),
            "{\"logical_count\":[[0,0],[1,2.5]]}\n");
  EXPECT_EQ(FormatSglangPlacement({.num_slots = 3, .layers = {{1, {1, 0, 1}}}}),
            "{\"physical_to_logical_map\":[[0,1,0],[1,0,1]]}\n");
}

TEST(SglangDump, RefusesByField) {
  const auto refusal = [](const std::string& json) { return RefusalOf([&] { Sglang(json); }); };
  EXPECT_THAT(refusal("{}"), HasSubstr("neither logical_count nor records"));
  EXPECT_THAT(
      refusal(R"({"logical_count": [[1], [1, 2]]})"),
      HasSubstr(
          "logical_count is a list whose entry 0 is an array [1] and entry 1 is an array [2]"));
  EXPECT_THAT(refusal(R"({"logical_count": [[1, -2]]})"), HasSubstr("logical_count[0, 1] is -2"));
  EXPECT_THAT(refusal(R"({"records": []})"), HasSubstr("records is an array [0]"));
  EXPECT_THAT(refusal(R"({"records": [{"forward_pass_id": 0, "rank": 0}]})"),
              HasSubstr("records[0]: global_physical_count is missing"));
  EXPECT_THAT(refusal(R"({"records": [{"forward_pass_id": 0, "rank": 0,
                       "global_physical_count": [[1, 2]]}],
                       "last_physical_to_logical_map": [[0, 1, 1]]})"),
              HasSubstr("layer 0 has 3 slots; the loads count 2"));
}

constexpr char kStats[] =
    R"({"record_type": "eplb_load_stats", "version": 1, "step": 3, "num_ranks": 2,
        "expert_load": [[1, 2, 3, 4]], "p2l_map": [[0, 1, 2, 0]]})";

std::string OneLine(std::string text) {
  std::erase(text, '\n');
  return text + "\n";
}

TEST(VllmJsonl, MapsEachRecordByItsOwnPlacement) {
  std::string later = OneLine(kStats);
  later.replace(later.find("[[0, 1, 2, 0]]"), 14, "[[2, 1, 2, 0]]");
  const VllmFile file = ParseVllmJsonl(
      OneLine(kStats) + "\n" + later + R"({"record_type": "bench_run_start"})", "s.jsonl");
  const Recording& recording = *file.recording;
  EXPECT_EQ(recording.ep_size, 2);
  EXPECT_THAT(recording.loads.batches.at(0), ElementsAre(Loads{5, 2, 3}, Loads{4, 2, 4}));
  EXPECT_EQ(recording.slot_expert.at(0), (std::vector<int32_t>{2, 1, 2, 0}));
  EXPECT_THAT(recording.notes, ElementsAre(HasSubstr("the placement changed"),
                                           HasSubstr("skipped: bench_run_start")));
}

TEST(VllmJsonl, RefusesByLine) {
  const auto refusal = [](const std::string& text) {
    return RefusalOf([&] { ParseVllmJsonl(text, "s.jsonl"); });
  };
  EXPECT_THAT(refusal("\n{\"record_type\": 1}"), HasSubstr("s.jsonl:2: record_type is 1"));
  EXPECT_THAT(refusal("{"), HasSubstr("s.jsonl:1: not valid JSON"));
  EXPECT_THAT(refusal("{\"record_type\": \"x\"}"), HasSubstr("no record of type eplb_load_stats"));
  std::string text = OneLine(kStats);
  text.replace(text.find("[[0, 1, 2, 0]]"), 14, "[[0, 1, 2]]   ");
  EXPECT_THAT(refusal(text), HasSubstr("p2l_map is [1, 3]; expert_load is [1, 4]"));
  text = OneLine(kStats);
  text.replace(text.find("\"version\": 1"), 12, "\"version\": 2");
  EXPECT_THAT(refusal(text), HasSubstr("version is 2"));
  EXPECT_THAT(refusal(R"({"record_type": "eplb_initial_mapping", "version": 1, "num_slots": 3,
                         "num_redundant_experts": 2, "initial_global_assignments": {"0": [0, 1, 0]}})"),
              HasSubstr("not valid JSON"));
  const auto refusal_of_mapping = [&](const std::string& redundant) {
    return refusal(OneLine(
        R"({"record_type": "eplb_initial_mapping", "version": 1, "num_slots": 3,
            "num_redundant_experts": )" +
        redundant + R"(, "initial_global_assignments": {"0": [0, 1, 0]}})"));
  };
  EXPECT_THAT(refusal_of_mapping("0"),
              HasSubstr("num_redundant_experts is 0; num_slots 3 less 2 experts is 1"));
  EXPECT_THAT(refusal_of_mapping("2"),
              HasSubstr("layer 0, slot 1 holds expert 1; num_slots 3 less num_redundant_experts "
                        "leaves experts 0 to 0"));
}

TEST(VllmJsonl, WritesWhatItReads) {
  statistics::LoadTable table;
  AddBatch(table, 0, {1, 2});
  AddBatch(table, 0, {3, 0.5});
  const VllmFile file = ParseVllmJsonl(FormatVllmStatistics(table, 2), "s.jsonl");
  EXPECT_EQ(file.recording->loads, table);
  EXPECT_EQ(file.recording->ep_size, 2);
  statistics::EplbConfig config{.num_slots = 4, .layers = {{3, {0, 1, 2, 0}}, {12, {2, 1, 0, 1}}}};
  const VllmFile mapping = ParseVllmJsonl(FormatVllmMapping(config), "m.jsonl");
  EXPECT_EQ(mapping.mapping->layers.at(0), config.layers.at(3));
  EXPECT_EQ(mapping.mapping->layers.at(1), config.layers.at(12));
}

TEST(AscendMap, WritesWhatItReads) {
  const statistics::EplbConfig config{.num_slots = 4,
                                      .layers = {{0, {0, 1, 2, 0}}, {1, {2, 1, 0, 1}}}};
  const PlacementFile file =
      AscendPlacement(ParseJsonDocument(FormatAscendMap(config, 2), "m.json"), "m.json");
  EXPECT_EQ(file.config.layers, config.layers);
  EXPECT_EQ(file.config.planned_ep_size, 2);
  EXPECT_THAT(RefusalOf([&] { FormatAscendMap(config, 3); }), HasSubstr("divides the slots"));
}

TEST(AscendMap, RefusesByLayerAndDevice) {
  const auto refusal = [](const std::string& json) {
    return RefusalOf([&] { AscendPlacement(ParseJsonDocument(json, "m.json"), "m.json"); });
  };
  EXPECT_THAT(refusal(R"({"moe_layer_count": 2, "layer_list": []})"),
              HasSubstr("layer_list is an array [0]; it must be a list of 2"));
  EXPECT_THAT(
      refusal(R"({"moe_layer_count": 1, "layer_list": [{"layer_id": 0, "device_count": 2,
    "device_list": [{"device_id": 0, "device_expert": [0, 1]}, {"device_id": 1, "device_expert": [2]}]}]})"),
      HasSubstr(
          "layer_list[0]: device_list[1]: device_expert is an array [1]; it must be a list of 2"));
  EXPECT_THAT(refusal(R"({"moe_layer_count": 1, "layer_list": [{"layer_id": 0, "device_count": 1,
    "device_list": [{"device_id": 1, "device_expert": [0, 1]}]}]})"),
              HasSubstr("device_id is 1; it must be an integer in [0, 0]"));
}

TEST(CsvRecording, ReadsALineAPairWithOrWithoutSteps) {
  const Recording plain =
      ParseCsvRecording("layer_id,expert_id,count\n3,1,7\n3,0,2\n5,2,1\n", "f.csv");
  EXPECT_EQ(plain.loads.layers.at(3), (Loads{2, 7, 0}));
  EXPECT_EQ(plain.loads.layers.at(5), (Loads{0, 0, 1}));
  EXPECT_TRUE(plain.loads.batches.empty());
  const Recording steps = ParseCsvRecording(
      "step,expert,layer,tokens\r\n10,0,3,1\r\n10,1,3,2\r\n12,1,3,5\r\n", "f.csv");
  EXPECT_THAT(steps.loads.batches.at(3), ElementsAre(Loads{1, 2}, Loads{0, 5}));
  EXPECT_THAT(steps.steps, ElementsAre(10, 12));
  EXPECT_EQ(ParseCsvRecording("e0,e1\n1,2\n", "f.csv").loads.layers.at(0), (Loads{1, 2}));
  EXPECT_EQ(ParseCsvRecording("1,2\n", "f.csv").loads.layers.at(0), (Loads{1, 2}));
}

TEST(CsvRecording, RefusesByLine) {
  const auto refusal = [](const std::string& text) {
    return RefusalOf([&] { ParseCsvRecording(text, "f.csv"); });
  };
  EXPECT_THAT(refusal("layer,expert,count\n1,2\n"), HasSubstr("f.csv:2: count is \"\""));
  EXPECT_THAT(refusal("layer,expert,count\n1,0.5,2\n"), HasSubstr("f.csv:2: expert is \"0.5\""));
  EXPECT_THAT(refusal("layer,expert,count\n1,0,2\n1,0,3\n"),
              HasSubstr("f.csv:3: layer 1 and expert 0"));
  EXPECT_THAT(refusal("layer,expert,count\n"), HasSubstr("holds no line but its header"));
  std::string wide = "step,layer,expert,count\n";
  for (int step = 0; step < 2000; ++step) wide += fmt::format("{0},{0},65535,1\n", step);
  EXPECT_THAT(refusal(wide),
              HasSubstr("2000 steps of 2000 layers and 65536 experts are more than"));
}

TEST(Recording, LeavesEmptyBatchesOut) {
  Recording recording = Sglang(R"({"logical_count": [[[0, 0]], [[1, 2]], [[0, 0]]]})");
  EXPECT_EQ(DropEmptyBatches(recording), 2);
  EXPECT_THAT(recording.loads.batches.at(0), ElementsAre(Loads{1, 2}));
  EXPECT_EQ(DropEmptyBatches(recording), 0);
}

TEST(Recording, ScalesSharesToCounts) {
  const Recording recording{.loads = {.num_experts = 2, .layers = {{4, {0.25, 0.75}}}}};
  EXPECT_TRUE(HoldsShares(recording.loads));
  EXPECT_EQ(StatisticsOf(recording, recording.loads).counts,
            (std::vector<int64_t>{250000, 750000}));
}

TEST(Engines, AreFoundByNameAndVariant) {
  EXPECT_EQ(FindEngine("sglang:lp", "--engine").split, Split::kOptimal);
  EXPECT_EQ(FindEngine("tensorrt_llm", "--engine").split, Split::kEven);
  EXPECT_EQ(DefaultTraits(Engine::kVllm).split, Split::kRoundRobin);
  EXPECT_THAT(RefusalOf([] { FindEngine("trt", "--engine"); }),
              HasSubstr("--engine is \"trt\"; allowed: tensorrt_llm, tensorrt_llm:2025, vllm"));
}

}  // namespace
}  // namespace wideload::formats
