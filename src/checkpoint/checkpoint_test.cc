#include "checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "base/json.h"
#include "checkpoint/shard_index.h"
#include "checkpoint/test_folder.h"

namespace wideload::checkpoint {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::array<float, 4> kValues = {1, 2, 3, 4};

// Writes a safetensors file whose tensors are all F32 [4].
void WriteTensors(const TestFolder& folder, const std::string& file,
                  const std::vector<std::string>& names) {
  std::vector<std::pair<std::string, TensorView>> tensors;
  for (const std::string& name : names)
    tensors.emplace_back(name, TensorView(DType::kF32, {4}, kValues.data()));
  WriteSafetensors(folder.path() + "/" + file, tensors);
}

void WriteIndex(const TestFolder& folder, const std::map<std::string, std::string>& shard_of) {
  folder.Write("model.safetensors.index.json", DumpJson(Json{{"weight_map", shard_of}}));
}

std::string OpenRefusal(const std::string& folder) {
  return Refusal([&] { const Checkpoint checkpoint(folder); });
}

TEST(Checkpoint, SeesTheTensorsOfAllShards) {
  const Checkpoint checkpoint(TinyQwen3Moe());
  EXPECT_EQ(checkpoint.num_files(), 4);
  EXPECT_EQ(checkpoint.TotalBytes(), 1074816U);
  const TensorView gate = checkpoint.Get("model.layers.3.mlp.gate.weight", DType::kBF16, {16, 64});
  EXPECT_EQ(gate.dim(0), 16);
  EXPECT_THAT(checkpoint.FileOf("lm_head.weight"), HasSubstr("model-00001-of-00004.safetensors"));
  EXPECT_EQ(checkpoint.UnusedTensors().size(), checkpoint.Names().size() - 1);
  EXPECT_FALSE(checkpoint.Has("model.layers.4.mlp.gate.weight"));
}

TEST(Checkpoint, NamesFileTensorFoundAndAllowed) {
  const Checkpoint checkpoint(TinyQwen3Moe());
  EXPECT_THAT(Refusal([&] {
                checkpoint.Get("lm_head.weight", {64, 320});
              }),
              AllOf(HasSubstr("model-00001-of-00004.safetensors"), HasSubstr("lm_head.weight"),
                    HasSubstr("[320, 64]"), HasSubstr("it must be [64, 320]")));
  EXPECT_THAT(Refusal([&] {
                checkpoint.Get("lm_head.weight", DType::kF32, {320, 64});
              }),
              AllOf(HasSubstr("BF16"), HasSubstr("F32")));
  EXPECT_THAT(Refusal([&] { checkpoint.Get("lm_head.bias"); }), HasSubstr("lm_head.bias"));
}

TEST(Checkpoint, ReportsTensorsThatNobodyAskedFor) {
  const TestFolder folder;
  WriteTensors(folder, "model.safetensors", {"a", "b", "c"});
  const Checkpoint checkpoint(folder.path());
  checkpoint.Get("b");
  checkpoint.Peek("c");
  EXPECT_THAT(checkpoint.UnusedTensors(), ElementsAre("a", "c"));
}

TEST(Checkpoint, RefusesFoldersWithoutUsableWeights) {
  const TestFolder folder;
  EXPECT_THAT(OpenRefusal(folder.path() + "/none"), HasSubstr("no such folder"));
  EXPECT_THAT(OpenRefusal(folder.path()), HasSubstr("expected model.safetensors"));
  WriteTensors(folder, "consolidated.safetensors", {"a"});
  EXPECT_THAT(OpenRefusal(folder.path()), HasSubstr("holds consolidated.safetensors"));
  EXPECT_THAT(OpenRefusal(folder.path() + "/consolidated.safetensors"),
              HasSubstr("give the folder"));
}

TEST(Checkpoint, RefusesGgufAndPickleByName) {
  const TestFolder folder;
  folder.Write("pytorch_model.bin", "PK\3\4");
  EXPECT_THAT(OpenRefusal(folder.path()),
              AllOf(HasSubstr("pytorch_model.bin"), HasSubstr("pickle"), HasSubstr("safetensors")));
  folder.Write("model-Q4_K.gguf", "GGUF");
  EXPECT_THAT(OpenRefusal(folder.path()),
              AllOf(HasSubstr("model-Q4_K.gguf"), HasSubstr("Hugging Face folder")));
  EXPECT_THAT(OpenRefusal(folder.path() + "/model-Q4_K.gguf"), HasSubstr("GGUF"));
  folder.Write("model.safetensors", std::string("GGUF\3\0\0\0\0\0\0\0", 12));
  EXPECT_THAT(OpenRefusal(folder.path()), HasSubstr("is a GGUF file"));
}

TEST(Checkpoint, RefusesAnIndexThatContradictsItsShards) {
  const TestFolder folder;
  WriteTensors(folder, "s1.safetensors", {"a", "b"});
  WriteIndex(folder, {{"a", "s1.safetensors"}, {"c", "s2.safetensors"}});
  EXPECT_THAT(OpenRefusal(folder.path()), HasSubstr("names the shard s2.safetensors"));
  WriteTensors(folder, "s2.safetensors", {"d"});
  EXPECT_THAT(Refusal([&] { Checkpoint(folder.path()).Get("c"); }),
              HasSubstr("holds the tensor c"));  // named by the index alone: missing when asked for
  WriteTensors(folder, "s2.safetensors", {"a", "c"});
  EXPECT_THAT(OpenRefusal(folder.path()),
              AllOf(HasSubstr("s2.safetensors: holds the tensor a"), HasSubstr("s1.safetensors")));
  WriteTensors(folder, "s2.safetensors", {"c"});
  EXPECT_EQ(OpenRefusal(folder.path()), "accepted");
}

TEST(Checkpoint, RefusesTruncatedShards) {
  const TestFolder folder;
  WriteTensors(folder, "model.safetensors", {"a", "b"});
  const std::string whole = ReadFile(folder.path() + "/model.safetensors");
  for (size_t size = 0; size < whole.size(); size += 5) {
    folder.Write("model.safetensors", whole.substr(0, size));
    EXPECT_THAT(OpenRefusal(folder.path()), HasSubstr("model.safetensors: ")) << size;
  }
}

TEST(ShardIndex, RefusesShardNamesThatLeaveTheFolder) {
  for (const char* shard : {"../x.safetensors", "/x.safetensors", "a/x.safetensors", "..",
                            ".safetensors", "", "a\\x.safetensors", "x.json"}) {
    const std::string text = DumpJson(Json{{"weight_map", {{"a", shard}}}});
    EXPECT_THAT(Refusal([&] { ParseShardIndex(text, "i.json"); }),
                AllOf(HasSubstr("i.json: weight_map.a"), HasSubstr("it must be")))
        << shard;
  }
}

TEST(ShardIndex, RefusesWhatIsNoIndex) {
  const auto refusal = [](const char* text) {
    return Refusal([&] { ParseShardIndex(text, "i.json"); });
  };
  EXPECT_THAT(refusal("[]"), HasSubstr("must be a JSON object"));
  EXPECT_THAT(refusal("{}"), HasSubstr("weight_map is missing"));
  EXPECT_THAT(refusal(R"({"weight_map":{}})"), HasSubstr("at least one tensor"));
  EXPECT_THAT(refusal(R"({"weight_map":{"a":1}})"), HasSubstr("weight_map.a is 1"));
  EXPECT_THAT(refusal(R"({"weight_map":{"a":"x.safetensors","a":"y.safetensors"}})"),
              HasSubstr("duplicate"));
  EXPECT_THAT(refusal(R"({"weight_map":{"a":"pytorch_model-1.bin"}})"), HasSubstr("pickle"));
  EXPECT_EQ(
      ParseShardIndex(R"({"metadata":{"total_size":"12"},"weight_map":{"a":"x.safetensors"}})", "i")
          .total_bytes,
      std::nullopt);
  EXPECT_THAT(refusal(R"({"metadata":{"total_size":-1},"weight_map":{"a":"x.safetensors"}})"),
              HasSubstr("metadata.total_size"));
}

TEST(CheckWeights, AcceptsFiniteWeights) {
  ThreadPool pool("check", 2);
  const Checkpoint checkpoint(TinyQwen3Moe());
  EXPECT_EQ(Refusal([&] { CheckWeights(checkpoint, {}, pool); }), "accepted");
  EXPECT_EQ(checkpoint.UnusedTensors().size(), checkpoint.Names().size());
}

TEST(CheckWeights, NamesTheFirstBadElement) {
  constexpr int64_t kCount = 3 << 20;  // several pieces of work
  std::vector<BF16> bf16(kCount, BF16{0x3f80});
  bf16[2500000] = BF16{0x7f80};
  bf16[2500001] = BF16{0x7fc0};
  const float f32[] = {0.0F, std::numeric_limits<float>::quiet_NaN()};
  const uint8_t f8[] = {0x7e, 0xff};
  const uint16_t f16[] = {0x7bff, 0xfc00};
  const TestFolder folder;
  const std::pair<std::string, TensorView> tensors[] = {
      {"a", TensorView(DType::kBF16, {kCount}, bf16.data())},
      {"b", TensorView(DType::kF32, {2}, f32)},
      {"c", TensorView(DType::kF8E4M3, {2}, f8)},
      {"d", TensorView(DType::kF16, {2}, f16)}};
  WriteSafetensors(folder.path() + "/model.safetensors", tensors);
  const Checkpoint checkpoint(folder.path());
  ThreadPool pool("check", 3);
  const auto refusal = [&](std::vector<std::string_view> names) {
    return Refusal([&] { CheckWeights(checkpoint, names, pool); });
  };
  EXPECT_THAT(refusal({}), AllOf(HasSubstr("model.safetensors"), HasSubstr("tensor a"),
                                 HasSubstr("element 2500000"), HasSubstr("inf")));
  EXPECT_THAT(refusal({"b"}), AllOf(HasSubstr("tensor b"), HasSubstr("element 1"), HasSubstr("nan"),
                                    Not(HasSubstr("tensor a"))));
  EXPECT_THAT(refusal({"d", "c"}), AllOf(HasSubstr("tensor c"), HasSubstr("element 1")));
  EXPECT_THAT(refusal({"d"}), HasSubstr("-inf"));
}

TEST(Checkpoint, HintsAtWhatItHoldsInsteadOfAMissingTensor) {
  const TestFolder folder;
  WriteTensors(
      folder, "model.safetensors",
      {"language_model.model.norm.weight", "layers.0.a.weight",
       "model.language_model.layers.0.b.weight", "model.layers.1.mlp.experts.gate_up_proj"});
  const Checkpoint checkpoint(folder.path());
  const auto refusal = [&](const char* name) { return Refusal([&] { checkpoint.Get(name); }); };
  EXPECT_THAT(refusal("model.norm.weight"),
              AllOf(HasSubstr("language_model.model.norm.weight"), HasSubstr("modalities")));
  EXPECT_THAT(refusal("model.layers.0.a.weight"),
              AllOf(HasSubstr("it holds layers.0.a.weight"), HasSubstr("bare model")));
  EXPECT_THAT(refusal("model.layers.0.b.weight"),
              AllOf(HasSubstr("model.language_model.layers.0.b.weight"), HasSubstr("modalities")));
  EXPECT_THAT(refusal("model.layers.1.mlp.experts.0.up_proj.weight"),
              HasSubstr("experts.gate_up_proj"));
  EXPECT_THAT(refusal("lm_head.weight"), ::testing::Not(HasSubstr("; ")));
}

}  // namespace
}  // namespace wideload::checkpoint
