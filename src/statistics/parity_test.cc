// The policies against recorded results of the programs they stand in for.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "eplb/policies/deepseek_policy.h"
#include "eplb/policies/tensorrt_llm_policy.h"
#include "statistics/statistics_folder.h"

namespace wideload::statistics {
namespace {

std::string SourceDir() { return std::getenv("WIDELOAD_SOURCE_DIR"); }

std::string SharedData() {
  const char* shared = std::getenv("WIDELOAD_SHARED");
  return (shared ? std::string(shared) : SourceDir() + "/../shared") + "/data";
}

// The generator's plan for these loads, byte for byte.
void ExpectGeneratorsPlan(const std::string& folder, int32_t ep_size, int32_t num_slots) {
  const std::string path = fmt::format("{}/expected_eplb_{}x{}.yaml", folder, ep_size, num_slots);
  const ExpertStatistics statistics = ReadStatistics(folder, {});
  EplbConfig config{.num_slots = num_slots};
  for (size_t l = 0; l < statistics.layers.size(); ++l) {
    const std::vector<int64_t> counts = LayerLoads(statistics, l);
    const std::vector<float> loads(counts.begin(), counts.end());
    for (const ExpertId expert : eplb::TensorRtLlmPlacement(loads, num_slots, ep_size).slot_expert)
      config.layers[statistics.layers[l]].push_back(expert.value);
  }
  EXPECT_EQ(config, ReadEplbYaml(path)) << path;
  EXPECT_EQ(FormatEplbYaml(config), ReadFile(path)) << path;
}

TEST(TensorRtLlmParity, GreedyPolicyGivesTheGeneratorsFiles) {
  const std::string folder = SourceDir() + "/testdata/statistics/small";
  for (const auto& [ep_size, num_slots] : {std::pair(4, 32), {4, 40}, {8, 40}})
    ExpectGeneratorsPlan(folder, ep_size, num_slots);
}

TEST(TensorRtLlmParity, GreedyPolicyGivesTheGeneratorsFilesForAnR1Shape) {
  const std::string folder = SharedData() + "/trtllm-statistics/r1-shape";
  if (!IsDirectory(folder)) GTEST_SKIP() << folder << " is not there; set WIDELOAD_SHARED";
  for (const auto& [ep_size, num_slots] : {std::pair(32, 256), {32, 288}, {36, 288}})
    ExpectGeneratorsPlan(folder, ep_size, num_slots);
}

std::vector<double> SortedRankLoads(std::span<const float> loads,
                                    std::span<const int32_t> slot_expert,
                                    std::span<const int32_t> replicas, int32_t num_ranks) {
  std::vector<double> rank_loads(static_cast<size_t>(num_ranks), 0);
  const size_t per_rank = slot_expert.size() / rank_loads.size();
  for (size_t s = 0; s < slot_expert.size(); ++s) {
    const auto e = static_cast<size_t>(slot_expert[s]);
    rank_loads[s / per_rank] += double{loads[e]} / replicas[e];
  }
  std::sort(rank_loads.begin(), rank_loads.end());
  return rank_loads;
}

bool HasTies(std::span<const float> loads) {
  return std::set<float>(loads.begin(), loads.end()).size() != loads.size();
}

// One case of the golden file: identical plans where no loads tie, equal rank loads elsewhere.
// Returns how many layers were compared entry by entry.
int ExpectGoldenCase(const SafetensorsFile& file, const std::string& name) {
  const TensorView weight = file.Get(name + ".weight");
  const TensorView shape = file.Get(name + ".shape", DType::kI64, Shape{4});
  const TensorView slots = file.Get(name + ".physical_to_logical");
  const TensorView counts = file.Get(name + ".logical_count");
  const TensorView inverse = file.Get(name + ".logical_to_physical");
  std::vector<int64_t> size(4);
  std::memcpy(size.data(), shape.raw(), 32);
  const eplb::DeepSeekSizes sizes{.num_slots = static_cast<int32_t>(size[0]),
                                  .num_groups = static_cast<int32_t>(size[1]),
                                  .num_nodes = static_cast<int32_t>(size[2]),
                                  .num_ranks = static_cast<int32_t>(size[3])};
  int identical = 0;
  for (int64_t layer = 0; layer < weight.dim(0); ++layer) {
    const auto num_experts = static_cast<size_t>(weight.dim(1));
    const std::span loads(weight.row<float>(layer), num_experts);
    const std::span expected(slots.row<int32_t>(layer), static_cast<size_t>(slots.dim(1)));
    const std::span expected_counts(counts.row<int32_t>(layer), num_experts);
    const eplb::DeepSeekPlan plan = eplb::DeepSeekRebalance(loads, sizes);
    if (HasTies(loads)) {
      const auto own = SortedRankLoads(loads, plan.slot_expert, plan.replicas, sizes.num_ranks);
      const auto theirs = SortedRankLoads(loads, expected, expected_counts, sizes.num_ranks);
      for (size_t r = 0; r < own.size(); ++r)
        EXPECT_NEAR(own[r], theirs[r], 1e-6 * (theirs[r] + 1)) << name << " layer " << layer;
      continue;
    }
    ++identical;
    EXPECT_TRUE(std::ranges::equal(plan.slot_expert, expected)) << name << " layer " << layer;
    EXPECT_TRUE(std::ranges::equal(plan.replicas, expected_counts)) << name << " layer " << layer;
    for (size_t e = 0; e < num_experts; ++e) {
      // Copies of one expert always tie, so only the set of its slots is defined.
      const int32_t* row = inverse.row<int32_t>(layer) + static_cast<int64_t>(e) * inverse.dim(2);
      std::multiset<int32_t> theirs(row, row + inverse.dim(2));
      theirs.erase(-1);
      std::multiset<int32_t> own;
      for (size_t s = 0; s < plan.slot_expert.size(); ++s)
        if (plan.slot_expert[s] == static_cast<int32_t>(e)) own.insert(static_cast<int32_t>(s));
      EXPECT_EQ(theirs, own) << name << " layer " << layer << " expert " << e;
    }
  }
  return identical;
}

TEST(DeepSeekParity, GivesThePublishedFunctionsPlans) {
  const std::string path = SharedData() + "/deepseek-eplb-golden.safetensors";
  if (!FileExists(path)) GTEST_SKIP() << path << " is not there; set WIDELOAD_SHARED";
  const SafetensorsFile file(path);
  int cases = 0;
  int identical = 0;
  constexpr std::string_view kSuffix = ".weight";
  for (const auto& [name, view] : file.tensors()) {
    if (!name.ends_with(kSuffix)) continue;
    ++cases;
    identical += ExpectGoldenCase(file, name.substr(0, name.size() - kSuffix.size()));
  }
  EXPECT_EQ(cases, 17);
  EXPECT_GE(identical, 58);
  RecordProperty("identical_layers", identical);
  std::printf("%d cases, %d layers without ties identical\n", cases, identical);
}

}  // namespace
}  // namespace wideload::statistics
