#include "config/config_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace wideload::config {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Refusal(std::string_view text) {
  try {
    ParseConfigFile(text, "a.yaml");
    return "";
  } catch (const Error& e) {
    EXPECT_EQ(ExitCode(e.kind()), 2);
    return e.what();
  }
}

KeyClass ClassOf(std::string_view text, std::string_view key) {
  for (const JudgedSetting& judged : ParseConfigFile(text, "a.yaml").settings)
    if (judged.key == key) return judged.key_class;
  ADD_FAILURE() << key << " is not in the file";
  return KeyClass::kEffective;
}

TEST(ConfigFile, SetsTheOptionsOfItsKeys) {
  const ConfigFile file = ParseConfigFile(
      "max_batch_size: 32\nmoe_expert_parallel_size: 4\ntemperature: 0.5\nignore_eos: True\n"
      "moe_config: {max_num_tokens: 9216, load_balancer: {num_slots: 288}}\n"
      "kv_cache_config: {free_gpu_memory_fraction: .25}\n",
      "a.yaml");
  EngineFlags engine;
  engine.max_batch_size = 7;
  engine.sources["--max-batch-size"] = "command line";
  ApplyConfigFile(file, engine);
  EXPECT_EQ(engine.max_batch_size, 7);
  EXPECT_EQ(engine.ep, 4);
  EXPECT_EQ(engine.moe_max_num_tokens, 9216);
  EXPECT_EQ(engine.num_slots, 288);
  EXPECT_EQ(engine.kv_cache_memory, "0.250000");
  EXPECT_EQ(engine.sources.at("--ep"), "a.yaml:2: moe_expert_parallel_size");
  SamplingFlags sampling;
  ApplyConfigFile(file, sampling);
  EXPECT_EQ(sampling.temperature, 0.5);
  EXPECT_TRUE(sampling.ignore_eos);
  EXPECT_EQ(sampling.top_k, std::nullopt);
}

TEST(ConfigFile, NamesFileLineKeyFoundAndAllowed) {
  EXPECT_EQ(Refusal("\nmoe_config: {load_balancer: {num_slots: many}}\n"),
            "a.yaml:2: moe_config.load_balancer.num_slots is many; allowed: 1 to 2147483647");
  EXPECT_THAT(Refusal("max_num_tokens: [1, 2]"), HasSubstr("max_num_tokens is a list"));
  EXPECT_THAT(Refusal("kv_cache_config: {free_gpu_memory_fraction: 1}"),
              HasSubstr("free_gpu_memory_fraction is 1; allowed: above 0 and below 1"));
  EXPECT_THAT(Refusal("model: " + std::string(4097, 'x')), HasSubstr("model has 4097 letters"));
  EXPECT_THAT(Refusal("moe_config: 5"), HasSubstr("moe_config is 5; a map is allowed"));
}

TEST(ConfigFile, RefusesUnknownKeysWithTheNearestKnown) {
  EXPECT_EQ(
      Refusal("a: 1\n"),
      fmt::format("a.yaml:1: unknown key \"a\"; the nearest known key is {}", NearestKey("a")));
  EXPECT_EQ(Refusal("moe_confg: {backend: WIDEEP}\n"),
            "a.yaml:1: unknown key \"moe_confg.backend\"; the nearest known key is "
            "moe_config.backend");
  EXPECT_THAT(Refusal("cuda_graph_config: {enable_pading: true}"),
              HasSubstr("cuda_graph_config.enable_padding"));
}

TEST(ConfigFile, TakesNullAndEmptyMapsForNothing) {
  for (const char* text : {"cuda_graph_config: null", "speculative_config: {}",
                           "moe_config:", "max_batch_size: ~", "tensor_parallel_size: null"}) {
    const ConfigFile file = ParseConfigFile(text, "a.yaml");
    EXPECT_EQ(file.settings.at(0).key_class, KeyClass::kNoEffect) << text;
    EXPECT_NO_THROW(RefuseUnsupported(file));
    EngineFlags flags;
    ApplyConfigFile(file, flags);
    EXPECT_TRUE(flags.sources.empty());
  }
}

TEST(ConfigFile, RefusesWhatIsNotSupportedUnlessItAsksForNothing) {
  EXPECT_EQ(ClassOf("moe_cluster_parallel_size: 1", "moe_cluster_parallel_size"),
            KeyClass::kNoEffect);
  EXPECT_EQ(ClassOf("moe_cluster_parallel_size: 2", "moe_cluster_parallel_size"),
            KeyClass::kUnsupported);
  try {
    RefuseUnsupported(ParseConfigFile("moe_cluster_parallel_size: 2", "a.yaml"));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUnsupported);
    EXPECT_THAT(e.what(), HasSubstr("a.yaml:1: moe_cluster_parallel_size is 2"));
    EXPECT_THAT(e.what(), HasSubstr("--allow-unsupported"));
  }
}

TEST(ConfigFile, TellsOfOldSpellingsAndTakesNoOptionTwice) {
  const ConfigFile file = ParseConfigFile("moe_max_num_tokens: 64\nmoe_backend: WIDEEP\n", "a");
  EngineFlags flags;
  ApplyConfigFile(file, flags);
  EXPECT_EQ(flags.moe_max_num_tokens, 64);
  EXPECT_THAT(Notes(file),
              Contains("a:1: moe_max_num_tokens is an old spelling of moe_config.max_num_tokens"));
  EXPECT_EQ(Refusal("moe_max_num_tokens: 64\nmoe_config: {max_num_tokens: 32}\n"),
            "a.yaml:2: moe_config.max_num_tokens is 32; line 1 sets the same: moe_max_num_tokens "
            "is 64");
}

TEST(ConfigFile, SetsTheLayoutOfTensorRtLlmsKeys) {
  EngineFlags flags;
  ApplyConfigFile(ParseConfigFile("tensor_parallel_size: 8\nmoe_expert_parallel_size: 8\n"
                                  "enable_attention_dp: true\n",
                                  "a"),
                  flags);
  EXPECT_EQ(flags.tp, 8);
  EXPECT_EQ(flags.ep, 8);
  EXPECT_TRUE(flags.attention_dp);
}

TEST(ConfigFile, SetsHowExpertsAreDivided) {
  EngineFlags flags;
  ApplyConfigFile(ParseConfigFile("tensor_parallel_size: 8\nmoe_tensor_parallel_size: 4\n"
                                  "moe_expert_parallel_size: 2\n",
                                  "a"),
                  flags);
  EXPECT_EQ(flags.tp, 8);
  EXPECT_EQ(flags.moe_tp, 4);
  EXPECT_EQ(flags.ep, 2);
}

TEST(ConfigFile, MinusOneLeavesSizesOfExpertsOpen) {
  const std::string text =
      "tensor_parallel_size: 8\nmoe_tensor_parallel_size: -1\nmoe_expert_parallel_size: -1\n";
  EXPECT_EQ(ClassOf(text, "moe_tensor_parallel_size"), KeyClass::kNoEffect);
  EngineFlags flags;
  ApplyConfigFile(ParseConfigFile(text, "a"), flags);
  EXPECT_EQ(flags.moe_tp, 0);
  EXPECT_EQ(flags.ep, 0);
}

TEST(ConfigFile, SizesThatContradictEachOtherAreNamedWithBothValues) {
  EXPECT_EQ(Refusal("tensor_parallel_size: 8\nmoe_expert_parallel_size: 3\n"),
            "a.yaml:1: tensor_parallel_size is 8, moe_expert_parallel_size is 3; the first must be "
            "a multiple of the second");
  EXPECT_THAT(Refusal("tensor_parallel_size: 8\nmoe_expert_parallel_size: 2\n"
                      "moe_tensor_parallel_size: 2\n"),
              HasSubstr("tensor_parallel_size is 8, moe_expert_parallel_size is 2 and "
                        "moe_tensor_parallel_size is 2"));
  EXPECT_EQ(Refusal("pipeline_parallel_size: 2\npp_partition: [3, 2, 1]\n"),
            "a.yaml:2: pp_partition is [3, 2, 1], 3 numbers, and pipeline_parallel_size is 2; as "
            "many are allowed as there are stages");
  EXPECT_EQ(Refusal("pp_micro_batches: 3\npipeline_parallel_size: 2\n"),
            "a.yaml:1: pp_micro_batches is 3 and pipeline_parallel_size is 2; the first is at most "
            "the second");
  EXPECT_EQ(Refusal("context_parallel_size: 3"),
            "a.yaml:1: context_parallel_size is 3; allowed are 1, 2, 4 and 8");
  EXPECT_THAT(Refusal("pipeline_parallel_size: none"), HasSubstr("pipeline_parallel_size is none"));
}

}  // namespace
}  // namespace wideload::config
