#include "config/known_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

namespace wideload::config {
namespace {

TEST(KnownKeys, NoneSetsAnOptionOrIsThereTwice) {
  std::set<std::string_view> seen;
  for (const KnownKey& known : KnownKeys()) {
    EXPECT_EQ(FindOptionOfKey(known.key), nullptr) << known.key;
    EXPECT_EQ(FindKnownKey(known.key), &known);
    EXPECT_TRUE(seen.insert(known.key).second) << known.key;
    EXPECT_NE(known.key_class, KeyClass::kEffective);
    EXPECT_FALSE(known.reason.empty());
  }
}

TEST(KnownKeys, KnowsTheKeysBelowOneAndNoOthers) {
  EXPECT_NE(FindKnownKey("cuda_graph_config.batch_sizes"), nullptr);
  EXPECT_EQ(FindKnownKey("cuda_graph_config.batch_size"), nullptr);
  EXPECT_EQ(FindKnownKey("cuda_graph_configs"), nullptr);
  EXPECT_NE(FindKnownKey("moe_config.load_balancer.initial_global_assignments.7"), nullptr);
  EXPECT_TRUE(IsSectionOfKeys("moe_config"));
  EXPECT_FALSE(IsSectionOfKeys("moe_conf"));
}

TEST(KnownKeys, OptionsHaveTensorRtLlmsKeyOrTheirName) {
  EXPECT_EQ(KeyOf(FindOption("--ep")), "moe_expert_parallel_size");
  EXPECT_EQ(KeyOf(FindOption("--check-weights")), "check_weights");
  EXPECT_EQ(KeyOf(FindOption("--config")), "");
  EXPECT_EQ(FindOptionOfKey("config"), nullptr);
  EXPECT_EQ(FindOptionOfKey("moe_config.max_num_tokens"), &FindOption("--moe-max-num-tokens"));
}

TEST(KnownKeys, OldSpellingsLeadToKeysOfToday) {
  EXPECT_EQ(KeyOfOldSpelling("moe_max_num_tokens"), "moe_config.max_num_tokens");
  EXPECT_EQ(KeyOfOldSpelling("pytorch_backend_config.moe_backend"), "moe_config.backend");
  EXPECT_EQ(KeyOfOldSpelling("pytorch_backend_config.print_iter_log"), "print_iter_log");
  EXPECT_EQ(KeyOfOldSpelling("max_batch_size"), "");
}

// The examples of Damerau's distance.
TEST(EditDistance, CountsSwapsOfNeighboursOnce) {
  EXPECT_EQ(EditDistance("", "abc"), 3);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3);
  EXPECT_EQ(EditDistance("recieve", "receive"), 1);
  EXPECT_EQ(EditDistance("ab", "ba"), 1);
}

TEST(NearestKey, FindsTheKeyOfAFlag) {
  EXPECT_EQ(NearestKey("tp_size"), "tensor_parallel_size");
  EXPECT_EQ(NearestKey("ep"), "moe_expert_parallel_size");
  EXPECT_EQ(NearestKey("pp-size"), "pipeline_parallel_size");
}

TEST(NearestKey, FindsAKeyAtAnotherLevel) {
  EXPECT_EQ(NearestKey("num_slots"), "moe_config.load_balancer.num_slots");
  EXPECT_EQ(NearestKey("moe_config.num_slot"), "moe_config.load_balancer.num_slots");
  EXPECT_EQ(NearestKey("free_gpu_memory_fraction"), "kv_cache_config.free_gpu_memory_fraction");
}

// Two letters in other places can make another key of a short one: top_k, top_p, min_p.
constexpr size_t kMinLetters = 8;

TEST(NearestKey, FindsTheKeyOf200Misspellings) {
  std::vector<std::string> keys;
  for (const OptionRow& row : OptionTable()) keys.push_back(KeyOf(row));
  for (const KnownKey& known : KnownKeys()) keys.emplace_back(known.key);
  std::erase_if(keys, [](const std::string& key) { return key.size() < kMinLetters; });
  std::mt19937 random(20260);  // NOLINT(cert-msc51-cpp): the seed is stated
  int num_found = 0;
  for (int i = 0; i < 200; ++i) {
    const std::string& key = keys[random() % keys.size()];
    std::string word = key;
    while (word == key || FindOptionOfKey(word) != nullptr || FindKnownKey(word) != nullptr) {
      word = key;
      const size_t at = 1 + random() % (key.size() - 2);
      const char letter = static_cast<char>('a' + random() % 26);
      switch (random() % 4) {
        case 0:
          word[at] = letter;
          break;
        case 1:
          word.insert(at, 1, letter);
          break;
        case 2:
          word.erase(at, 1);
          break;
        default:
          std::swap(word[at], word[at + 1]);
      }
    }
    EXPECT_EQ(NearestKey(word), key) << word;
    num_found += NearestKey(word) == key ? 1 : 0;
  }
  EXPECT_EQ(num_found, 200);
}

}  // namespace
}  // namespace wideload::config
