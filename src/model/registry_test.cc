#include "model/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "model/inspection.h"

namespace wideload::model {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::string ModelsFolder() {
  const char* folder = std::getenv("WIDELOAD_SOURCE_DIR");
  return std::string(folder != nullptr ? folder : ".") + "/testdata/models/";
}

Json ConfigOf(const std::string& name) {
  return ReadJsonFile(ModelsFolder() + name + "/config.json");
}

std::string Message(const Json& config) {
  try {
    ParseModel(DumpJson(config), "config.json");
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

// What is unsupported in a folder's config with one field changed.
std::vector<std::string> UnsupportedWith(const std::string& name, const std::string& field,
                                         const Json& value) {
  Json json = ConfigOf(name);
  json[field] = value;
  return ParseModel(DumpJson(json), "config.json").unsupported;
}

std::vector<std::string> TinyFolders() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(ModelsFolder()))
    if (FileExists(entry.path().string() + "/config.json"))
      names.push_back(entry.path().filename().string());
  return names;
}

TEST(Registry, ReadsEveryFamilyInBothSpellings) {
  for (const std::string& name : TinyFolders()) {
    const ModelReading reading = ReadModel(ModelsFolder() + name);
    EXPECT_NE(reading.family, "") << name;
    const std::string newer = ModelsFolder() + name + "/config.transformers5.json";
    if (!FileExists(newer)) continue;
    const ModelReading other = ParseModel(ReadFile(newer), newer);
    EXPECT_THAT(other.unsupported, IsEmpty()) << name;
    EXPECT_EQ(reading.config, other.config) << name;
  }
}

TEST(Registry, NamesTheArchitecturesThereAre) {
  Json json = ConfigOf("tiny-qwen3-moe");
  json["architectures"] = {"GPT2LMHeadModel"};
  const ModelReading reading = ParseModel(DumpJson(json), "config.json");
  EXPECT_EQ(reading.family, "");
  EXPECT_THAT(reading.unsupported,
              ElementsAre(AllOf(HasSubstr("GPT2LMHeadModel"), HasSubstr("Qwen3MoeForCausalLM"))));
}

TEST(Registry, AFamilyRefusesTheKeysOfOthers) {
  const std::string qwen3 = "tiny-qwen3-moe";
  const std::pair<const char*, Json> changes[] = {
      {"kv_lora_rank", 32},
      {"scoring_func", "sigmoid"},
      {"n_shared_experts", 1},
      {"attention_chunk_size", 16},
      {"no_rope_layers", {1, 0, 1, 0}},
      {"hidden_act", "gelu"},
      {"swiglu_limit", 7.0},
      {"final_logit_softcapping", 30.0},
      {"quantization_config", {{"quant_method", "awq"}}},
      {"rope_scaling", {{"type", "dynamic"}}}};
  for (const auto& [field, value] : changes)
    EXPECT_THAT(UnsupportedWith(qwen3, field, value), ElementsAre(HasSubstr(field)));
  // Families that have them read them.
  EXPECT_THAT(UnsupportedWith("tiny-gpt-oss", "swiglu_limit", 6.0), IsEmpty());
  EXPECT_THAT(UnsupportedWith("tiny-glm4-moe", "n_shared_experts", 2), IsEmpty());
  EXPECT_THAT(UnsupportedWith("tiny-olmoe", "clip_qkv", 8.0), ElementsAre(HasSubstr("clip_qkv")));
  EXPECT_THAT(UnsupportedWith("tiny-llama4-text", "num_experts_per_tok", 2),
              ElementsAre(HasSubstr("one expert a token")));
}

TEST(Registry, SettingsThatChangeNothingAreNoReason) {
  const std::string qwen3 = "tiny-qwen3-moe";
  EXPECT_THAT(UnsupportedWith(qwen3, "sliding_window", 4096), IsEmpty());  // not used
  EXPECT_THAT(UnsupportedWith(qwen3, "n_group", 1), IsEmpty());
  EXPECT_THAT(UnsupportedWith(qwen3, "attn_temperature_tuning", false), IsEmpty());
  EXPECT_THAT(UnsupportedWith(qwen3, "unheard_of", 1), IsEmpty());
}

TEST(Registry, NamesEveryReasonAtOnce) {
  Json json = ConfigOf("tiny-qwen3-moe");
  json["kv_lora_rank"] = 32;
  json["hidden_act"] = "relu";
  json["quantization_config"] = {{"quant_method", "gptq"}};
  EXPECT_THAT(ParseModel(DumpJson(json), "config.json").unsupported, SizeIs(3));
}

TEST(Registry, NamesEveryFieldThatIsMissingOrImpossible) {
  Json json = ConfigOf("tiny-deepseek-v3");
  json["hidden_size"] = "64";
  json["num_attention_heads"] = 0;
  json["rms_norm_eps"] = nullptr;
  json["n_routed_experts"] = 1.5;
  json["torch_dtype"] = 16;
  json["eos_token_id"] = "x";
  json["rope_scaling"] = 4;
  json["kv_lora_rank"] = true;
  json["routed_scaling_factor"] = "2";
  json["quantization_config"] = 1;
  std::vector<std::string> faults;
  ParseModel(DumpJson(json), "config.json", faults);
  for (const char* field :
       {"hidden_size is \"64\"", "num_attention_heads is 0", "rms_norm_eps is missing",
        "n_routed_experts is 1.5", "torch_dtype is 16", "eos_token_id is \"x\"",
        "rope_scaling is 4", "kv_lora_rank is true", "routed_scaling_factor is \"2\"",
        "quantization_config is 1"}) {
    EXPECT_THAT(faults, Contains(HasSubstr(field)));
    EXPECT_THAT(Message(json), HasSubstr(field));
  }
}

TEST(Registry, ReadsWindowsAsTheKeysSay) {
  const auto windows = [](const Json& more) {
    Json json = ConfigOf("tiny-qwen3-moe");
    json.update(more);
    std::vector<int64_t> found;
    for (const LayerSpec& layer : ParseModel(DumpJson(json), "config.json").spec.layers)
      found.push_back(std::get<GqaSpec>(layer.attention).window);
    return found;
  };
  EXPECT_THAT(windows({{"sliding_window", 8}}), ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(
      windows({{"sliding_window", 8}, {"use_sliding_window", true}, {"max_window_layers", 3}}),
      ElementsAre(0, 0, 0, 8));
  EXPECT_THAT(windows({{"sliding_window", 8}, {"use_sliding_window", nullptr}}),
              ElementsAre(8, 8, 8, 8));
  EXPECT_THAT(
      windows({{"sliding_window", 8},
               {"use_sliding_window", true},
               {"layer_types",
                {"full_attention", "sliding_attention", "full_attention", "sliding_attention"}}}),
      ElementsAre(0, 8, 0, 8));
}

TEST(Registry, RefusesImpossibleFieldsByName) {
  const auto refusal = [](const std::string& name, const std::string& field, const Json& value) {
    Json json = ConfigOf(name);
    json[field] = value;
    return Message(json);
  };
  EXPECT_THAT(refusal("tiny-qwen3-moe", "head_dim", 33), HasSubstr("must be even"));
  EXPECT_THAT(refusal("tiny-qwen3-moe", "norm_topk_prob", 1), HasSubstr("true or false"));
  EXPECT_THAT(refusal("tiny-deepseek-v3", "kv_lora_rank", nullptr), HasSubstr("kv_lora_rank"));
  EXPECT_THAT(refusal("tiny-deepseek-v3", "n_group", 3), HasSubstr("a divisor of the number"));
  EXPECT_THAT(refusal("tiny-deepseek-v3", "topk_group", 5), HasSubstr("topk_group is 5"));
  EXPECT_THAT(refusal("tiny-llama4-text", "no_rope_layers", {1, 2, 1, 1}),
              HasSubstr("no_rope_layers"));
  Json heads = ConfigOf("tiny-qwen3-moe");
  heads.erase("head_dim");
  heads["num_attention_heads"] = 6;
  EXPECT_THAT(Message(heads), HasSubstr("head_dim is missing"));
  Json experts = ConfigOf("tiny-qwen3-moe");
  experts.erase("num_experts");
  experts.erase("num_experts_per_tok");
  experts.erase("moe_intermediate_size");
  EXPECT_THAT(Message(experts), HasSubstr("num_experts is missing"));
}

TEST(Inspection, LooksAtTheTensorsOfEveryFamily) {
  for (const std::string& name : TinyFolders()) {
    const Inspection inspection = InspectFolder(ModelsFolder() + name);
    EXPECT_THAT(inspection.reasons, IsEmpty()) << name;
    EXPECT_TRUE(inspection.kv_bytes_per_token.has_value()) << name;
  }
  EXPECT_EQ(InspectFolder(ModelsFolder() + "tiny-qwen3-moe").kv_bytes_per_token,
            4U * 2 * 2 * 32 * 2);
  // One latent row a token and layer.
  EXPECT_EQ(InspectFolder(ModelsFolder() + "tiny-deepseek-v3").kv_bytes_per_token,
            3U * (32 + 16) * 2);
}

TEST(Inspection, GivesReasonsWhereSomethingIsMissing) {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / fmt::format("wideload.{}.inspect", ::getpid());
  std::filesystem::create_directories(folder);
  const auto write = [&](const char* file, const std::string& text) {
    WriteFileWhole((folder / file).string(), text);
  };
  write("config.json", DumpJson(ConfigOf("tiny-qwen3-moe")));
  const std::string path = folder.string();
  EXPECT_THAT(InspectFolder(path).reasons, ElementsAre(HasSubstr("holds no weights")));
  EXPECT_EQ(InspectFolder(path).family, "Qwen3-MoE");
  write("model.safetensors", "not a file of tensors");
  write("generation_config.json", R"({"eos_token_id": "x"})");
  EXPECT_THAT(InspectFolder(path).reasons, AllOf(SizeIs(2), Contains(HasSubstr("eos_token_id")),
                                                 Contains(HasSubstr("model.safetensors"))));
  write("config.json", "{");
  EXPECT_THAT(InspectFolder(path).reasons, Contains(HasSubstr("not valid JSON")));
  std::filesystem::remove_all(folder);
  EXPECT_THROW(InspectFolder(path), Error);
}

}  // namespace
}  // namespace wideload::model
