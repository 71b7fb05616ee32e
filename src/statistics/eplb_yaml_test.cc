#include "statistics/eplb_yaml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace wideload::statistics {
namespace {

using ::testing::HasSubstr;

constexpr char kText[] =
    "initial_global_assignments:\n"
    "  3: [0, 1, 2, 1]\n"
    "  7: [2, 2, 0, 1]\n"
    "layer_updates_per_iter: 0\n"
    "num_slots: 4\n";

std::string Refusal(std::string_view text) {
  try {
    ParseEplbYaml(text, "f.yaml");
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

TEST(EplbYaml, ReadsAndWritesTheGeneratorsLayout) {
  const EplbConfig config = ParseEplbYaml(kText, "f.yaml");
  EXPECT_EQ(config.num_slots, 4);
  EXPECT_EQ(config.num_experts(), 3);
  EXPECT_EQ(config.layers.at(7), (std::vector<int32_t>{2, 2, 0, 1}));
  EXPECT_EQ(FormatEplbYaml(config), kText);
}

TEST(EplbYaml, ReadsListsInBlockStyleAndWithoutLayers) {
  const EplbConfig config = ParseEplbYaml(
      "num_slots: 2\nep_size: 2\nmode: standard\ninitial_global_assignments:\n  0:\n  - 1\n  - 0\n",
      "f");
  EXPECT_EQ(config.layers.at(0), (std::vector<int32_t>{1, 0}));
  EXPECT_EQ(config.ep_size, 2);
  EXPECT_TRUE(ParseEplbYaml("num_slots: 8\n", "f").layers.empty());
}

TEST(EplbYaml, RemembersTheRanksOfAPlanInACommentThatBindsNobody) {
  const std::string text = std::string(kText) + "# ep_size: 2\n";
  const EplbConfig config = ParseEplbYaml(text, "f.yaml");
  EXPECT_EQ(config.planned_ep_size, 2);
  EXPECT_EQ(config.KnownEpSize(), 2);
  EXPECT_FALSE(config.ep_size.has_value());
  EXPECT_EQ(FormatEplbYaml(config), text);
  CheckEplbConfig(config, {.num_experts = 3, .ep_size = 4, .layers = {3, 7}}, "f.yaml");
  for (const char* other :
       {"# ep_size: 0\n", "# ep_size: 2 \n", "# ep_size: -1\n", "  # ep_size: 2\n"})
    EXPECT_FALSE(ParseEplbYaml(std::string(kText) + other, "f").planned_ep_size) << other;
}

TEST(EplbYaml, RefusesByNameWithLine) {
  EXPECT_THAT(Refusal("num_slots: 4\nnum_slots: 4\n"),
              HasSubstr("f.yaml:2: duplicate key \"num_slots\""));
  EXPECT_THAT(Refusal("num_slots: 1\ninitial_global_assignments:\n  3: [0]\n  3: [0]\n"),
              HasSubstr("f.yaml:4: duplicate key initial_global_assignments.3"));
  EXPECT_THAT(Refusal("num_slots: 4\nslots: 4\n"), HasSubstr("unknown key \"slots\"; allowed: "));
  EXPECT_THAT(Refusal("layer_updates_per_iter: 0\n"), HasSubstr("num_slots is missing"));
  EXPECT_THAT(Refusal(""), HasSubstr("is empty"));
  EXPECT_THAT(Refusal("[1]\n"), HasSubstr("found a list; a map is allowed here"));
  EXPECT_THAT(Refusal("num_slots: {}\n"), HasSubstr("found a map; an integer is allowed here"));
  EXPECT_THAT(Refusal("num_slots: -4\n"), HasSubstr("num_slots is \"-4\"; it must be an integer"));
  EXPECT_THAT(Refusal("num_slots: \"4\"\n"), HasSubstr("quotes"));
  EXPECT_THAT(Refusal("num_slots: &a 4\n"), HasSubstr("anchor"));
  EXPECT_THAT(Refusal("num_slots: 4\n--- \nnum_slots: 4\n"), HasSubstr("more than one document"));
  EXPECT_THAT(Refusal("num_slots: [4\n"), HasSubstr("f.yaml:"));
  EXPECT_THAT(Refusal("num_slots: 2\ninitial_global_assignments: {1: [0, 2]}\n"),
              HasSubstr("initial_global_assignments.1 has no slot for expert 1"));
  EXPECT_THAT(Refusal("num_slots: 3\ninitial_global_assignments: {1: [0, 1]}\n"),
              HasSubstr("has 2 entries; it must have 3 (num_slots)"));
  EXPECT_THAT(Refusal("num_slots: 2\ninitial_global_assignments: {1: [0, 1.5]}\n"),
              HasSubstr("an expert of layer 1 is \"1.5\""));
  EXPECT_THAT(Refusal("num_slots: 2\ninitial_global_assignments: {1: 5}\n"),
              HasSubstr("a list is allowed here"));
  EXPECT_THAT(Refusal("num_slots: 2\ninitial_global_assignments: {1: [[0]]}\n"),
              HasSubstr("an integer is allowed here"));
}

TEST(EplbYaml, SurvivesDeepNesting) {
  EXPECT_NE(Refusal(std::string(100000, '[')), "accepted");
  EXPECT_NE(Refusal("num_slots: " + std::string(100000, '{')), "accepted");
}

TEST(CheckEplbConfig, RefusesTheFileOfAnotherModel) {
  const EplbConfig config = ParseEplbYaml(kText, "f.yaml");
  const auto refusal = [&](const EplbTarget& target) -> std::string {
    try {
      CheckEplbConfig(config, target, "f.yaml");
    } catch (const Error& e) {
      return e.what();
    }
    return "accepted";
  };
  EXPECT_EQ(refusal({.num_experts = 3, .ep_size = 2, .layers = {3, 7}}), "accepted");
  EXPECT_THAT(refusal({.num_experts = 4, .ep_size = 2, .layers = {3, 7}}),
              HasSubstr("places 3 experts; the model has 4"));
  EXPECT_THAT(refusal({.num_experts = 3, .ep_size = 3, .layers = {3, 7}}),
              HasSubstr("num_slots is 4"));
  EXPECT_THAT(refusal({.num_experts = 3, .ep_size = 2, .layers = {3, 4, 7}}),
              HasSubstr("has no layer 4"));
  EXPECT_THAT(refusal({.num_experts = 3, .ep_size = 2, .layers = {3}}),
              HasSubstr("initial_global_assignments.7 is no MoE layer"));
}

TEST(LayerPlacement, IsContiguousWithoutLayers) {
  const EplbTarget target{.num_experts = 4, .ep_size = 2, .layers = {0}};
  EXPECT_EQ(LayerPlacement({.num_slots = 6}, 0, target, "f"), eplb::ContiguousPlacement(4, 6, 2));
  const EplbConfig config = ParseEplbYaml(kText, "f.yaml");
  EXPECT_EQ(LayerPlacement(config, 3, {3, 2, {3, 7}}, "f").slot_expert[3], ExpertId(1));
  EXPECT_THROW(LayerPlacement(config, 4, {3, 2, {3, 7}}, "f"), Error);
}

}  // namespace
}  // namespace wideload::statistics
