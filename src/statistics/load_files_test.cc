#include "statistics/load_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/error.h"

namespace wideload::statistics {
namespace {

using ::testing::HasSubstr;

template <class F>
std::string Refusal(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

// The bytes of a safetensors file.
class Bytes {
 public:
  template <class T>
  Bytes& Add(const std::string& name, const char* dtype, const std::string& shape,
             const std::vector<T>& values) {
    header_ += fmt::format("{}\"{}\":{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{},{}]}}",
                           header_.empty() ? "" : ",", name, dtype, shape, data_.size(),
                           data_.size() + values.size() * sizeof(T));
    data_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
    return *this;
  }
  SafetensorsFile File() {
    const uint64_t size = header_.size() + 2;
    bytes_ = std::string(reinterpret_cast<const char*>(&size), 8) + "{" + header_ + "}" + data_;
    return SafetensorsFile(std::as_bytes(std::span(bytes_)), "f.safetensors");
  }

 private:
  std::string header_, data_, bytes_;
};

TEST(LoadsOfTensor, ReadsAnyNumberType) {
  Bytes bytes;
  bytes.Add<int64_t>("i", "I64", "[2,2]", {1, 2, 3, 4});
  bytes.Add<float>("f", "F32", "[1,2]", {0.5, 2});
  bytes.Add<uint16_t>("b", "BF16", "[1,2]", {0x3f80, 0x4000});
  bytes.Add<uint8_t>("u", "U8", "[1,2]", {3, 255});
  bytes.Add<double>("negative", "F64", "[1,2]", {1, -1});
  bytes.Add<uint8_t>("bool", "BOOL", "[1,2]", {1, 0});
  bytes.Add<uint8_t>("cube", "U8", "[1,1,1]", {1});
  const SafetensorsFile file = bytes.File();
  EXPECT_EQ(LoadsOfTensor(file, "i").layers.at(1), (std::vector<double>{3, 4}));
  EXPECT_EQ(LoadsOfTensor(file, "f").layers.at(0), (std::vector<double>{0.5, 2}));
  EXPECT_EQ(LoadsOfTensor(file, "b").layers.at(0), (std::vector<double>{1, 2}));
  EXPECT_EQ(LoadsOfTensor(file, "u").layers.at(0), (std::vector<double>{3, 255}));
  EXPECT_THAT(
      Refusal([&] { LoadsOfTensor(file, "negative"); }),
      HasSubstr("tensor negative[0, 1] is -1; it must be finite, at least 0 and at most 1e+30"));
  EXPECT_THAT(Refusal([&] { LoadsOfTensor(file, "bool"); }), HasSubstr("must hold numbers"));
  EXPECT_THAT(Refusal([&] { LoadsOfTensor(file, "cube"); }), HasSubstr("[layers, experts]"));
  EXPECT_THAT(Refusal([&] { LoadsOfTensor(file, "none"); }),
              HasSubstr("has no tensor \"none\"; it has b"));
}

TEST(LoadCsv, ReadsWithAndWithoutLayerColumn) {
  const LoadTable plain = ParseLoadCsv("1, 2,3\r\n\n4,5,6.5", "f.csv");
  EXPECT_EQ(plain.num_experts, 3);
  EXPECT_EQ(plain.layers.at(1), (std::vector<double>{4, 5, 6.5}));
  const LoadTable keyed = ParseLoadCsv("layer,0,1\n7,1,2\n3,4,5\n", "f.csv");
  EXPECT_EQ(keyed.layers.at(7), (std::vector<double>{1, 2}));
  EXPECT_EQ(ParseLoadCsv(FormatLoadCsv(keyed), "f.csv"), keyed);
  EXPECT_EQ(ParseLoadCsv("\xEF\xBB\xBF" + FormatLoadCsv(keyed), "f.csv"), keyed);
}

TEST(LoadCsv, RefusesByLine) {
  const auto refusal = [](const char* text) {
    return Refusal([&] { ParseLoadCsv(text, "f.csv"); });
  };
  EXPECT_THAT(refusal("1,2\n1,x\n"), HasSubstr("f.csv:2: value 2 is \"x\""));
  EXPECT_THAT(refusal("1,2\n1\n"), HasSubstr("f.csv:2: has 1 experts; the layers before have 2"));
  EXPECT_THAT(refusal("1,-2\n"), HasSubstr("value 2 is -2"));
  EXPECT_THAT(refusal("1,1.1e30\n"), HasSubstr("value 2 is 1.1e+30; it must be finite"));
  EXPECT_THAT(refusal("1,nan\n"), HasSubstr("must be finite"));
  EXPECT_THAT(refusal("layer,0\n1,2\n1,2\n"), HasSubstr("layer 1 is there twice"));
  EXPECT_THAT(refusal("layer,0\n1.5,2\n"), HasSubstr("layer is 1.5"));
  EXPECT_THAT(refusal("layer,0\n1\n"), HasSubstr("has 0 experts"));
  EXPECT_THAT(refusal("layer,0\n"), HasSubstr("holds no layer"));
  EXPECT_THAT(refusal("1,,2\n"), HasSubstr("value 2 is \"\""));
}

TEST(SglangJson, ReadsCountsOfStepsAndPlacements) {
  const SglangFile file = ParseSglangJson(
      R"({"logical_count": [[[1, 2], [3, 4]], [[10, 20], [30, 40]]], "rank": 0,
          "physical_to_logical_map": [[0, 1, 1], [1, 0, 0]]})",
      "f.json");
  const LoadTable loads = file.loads.value_or(LoadTable{});
  EXPECT_EQ(loads.layers.at(1), (std::vector<double>{33, 44}));
  EXPECT_EQ(file.slot_expert[1], (std::vector<int32_t>{1, 0, 0}));
  EXPECT_EQ(loads.batches.at(0), (std::vector<std::vector<double>>{{1, 2}, {10, 20}}));
  const LoadTable again =
      ParseSglangJson(FormatSglangCounts(loads), "f").loads.value_or(LoadTable{});
  EXPECT_EQ(again.layers, loads.layers);
  EXPECT_TRUE(again.batches.empty());
}

TEST(SglangJson, FillsDenseLayers) {
  EXPECT_EQ(FormatSglangCounts({.num_experts = 2, .layers = {{1, {1, 2.5}}}}),
            "{\"logical_count\":[[0,0],[1,2.5]]}\n");
  EXPECT_EQ(FormatSglangPlacement({.num_slots = 3, .layers = {{1, {1, 0, 1}}}}),
            "{\"physical_to_logical_map\":[[0,1,0],[1,0,1]]}\n");
}

TEST(SglangJson, RefusesByField) {
  const auto refusal = [](const char* text) {
    return Refusal([&] { ParseSglangJson(text, "f.json"); });
  };
  EXPECT_THAT(refusal("{}"), HasSubstr("neither logical_count nor physical_to_logical_map"));
  EXPECT_THAT(refusal(R"({"logical_count": [[1, -1]]})"), HasSubstr("logical_count[0][1] is -1"));
  EXPECT_THAT(refusal(R"({"logical_count": [[1], [1, 2]]})"), HasSubstr("logical_count[1]: has 2"));
  EXPECT_THAT(refusal(R"({"logical_count": []})"), HasSubstr("must be an array of 1 to"));
  EXPECT_THAT(refusal(R"({"logical_count": [[[1]], [[1, 2]]]})"), HasSubstr("logical_count[1] is"));
  EXPECT_THAT(refusal(R"({"logical_count": [[]]})"), HasSubstr("has 0 experts"));
  EXPECT_THAT(refusal(R"({"physical_to_logical_map": [[0], [0, 1]]})"),
              HasSubstr("physical_to_logical_map[1] must be an array of 1 experts"));
  EXPECT_THAT(refusal(R"({"physical_to_logical_map": [[-1]]})"),
              HasSubstr("physical_to_logical_map[0][0] must be an expert"));
}

TEST(Routing, ReadsAnswersAndTasks) {
  Bytes answers;
  answers.Add<uint8_t>("expert_ids", "U8", "[3,1,2]", {0, 1, 2, 1, 3, 0});
  answers.Add<int64_t>("answer_tokens", "I64", "[2]", {1, 2});
  const Routing one = RoutingOfFile(answers.File());
  EXPECT_EQ(one.num_experts, 4);
  EXPECT_EQ(one.top_k, 2);
  EXPECT_EQ(one.tasks[0].document_tokens, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(RoutingLoads(one).layers.at(0), (std::vector<double>{2, 2, 1, 1}));

  Bytes tasks;
  tasks.Add<int16_t>("a", "I16", "[1,2,1]", {0, 5});
  tasks.Add<int32_t>("a_document_tokens", "I32", "[1]", {1});
  tasks.Add<int64_t>("b", "I64", "[2,2,1]", {1, 2, 3, 4});
  tasks.Add<uint64_t>("b_document_tokens", "U64", "[2]", {2, 0});
  const Routing two = RoutingOfFile(tasks.File(), 8);
  EXPECT_EQ(two.num_experts, 8);
  EXPECT_EQ(two.NumTokens(two.tasks[1]), 2);
  EXPECT_EQ(RoutingLoads(two).layers.at(1)[5], 1);
  const eplb::RoutingTrace trace = RoutingTraceOf(two);
  EXPECT_EQ(trace.num_experts, 8);
  EXPECT_EQ(trace.tasks[1].document_tokens, (std::vector<int64_t>{2, 0}));
  EXPECT_EQ(trace.tasks[0].expert_ids, (std::vector<uint16_t>{0, 5}));
  EXPECT_THAT(Refusal([&] { RoutingOfFile(tasks.File(), 5); }),
              HasSubstr("holds expert 5; allowed: 0 to 4"));
}

TEST(Routing, IsCutIntoIterations) {
  Bytes file;
  file.Add<int16_t>("a", "I16", "[3,1,1]", {0, 1, 1});
  file.Add<int32_t>("a_document_tokens", "I32", "[1]", {3});
  file.Add<int64_t>("b", "I64", "[2,1,1]", {0, 0});
  file.Add<int64_t>("b_document_tokens", "I64", "[1]", {2});
  const ExpertStatistics cut = CutIntoIterations(RoutingOfFile(file.File()), 2);
  EXPECT_EQ(cut.num_iterations, 3);
  EXPECT_EQ(cut.counts, (std::vector<int64_t>{1, 1, 1, 1, 1, 0}));
}

TEST(Routing, RefusesByTensor) {
  const auto refusal = [](Bytes& bytes) { return Refusal([&] { RoutingOfFile(bytes.File()); }); };
  Bytes negative;
  negative.Add<int8_t>("a", "I8", "[1,1,1]", {-1})
      .Add<int8_t>("a_document_tokens", "I8", "[1]", {1});
  EXPECT_THAT(refusal(negative), HasSubstr("tensor a holds expert -1"));
  Bytes lengths;
  lengths.Add<int8_t>("a", "I8", "[1,1,1]", {0}).Add<int8_t>("a_document_tokens", "I8", "[1]", {2});
  EXPECT_THAT(refusal(lengths), HasSubstr("a_document_tokens[0] is 2"));
  Bytes shorter;
  shorter.Add<int8_t>("a", "I8", "[1,1,1]", {0}).Add<int8_t>("a_document_tokens", "I8", "[1]", {0});
  EXPECT_THAT(refusal(shorter), HasSubstr("sums to 0; it must sum to 1"));
  Bytes floats;
  floats.Add<float>("a", "F32", "[1,1,1]", {0}).Add<int8_t>("a_document_tokens", "I8", "[1]", {1});
  EXPECT_THAT(refusal(floats), HasSubstr("tensor a is F32; it must hold integers"));
  Bytes alone;
  alone.Add<int8_t>("a", "I8", "[1,1,1]", {0});
  EXPECT_THAT(refusal(alone), HasSubstr("no tensor a_document_tokens"));
  Bytes orphan;
  orphan.Add<int8_t>("a_document_tokens", "I8", "[1]", {1});
  EXPECT_THAT(refusal(orphan), HasSubstr("no tensor a"));
  Bytes flat;
  flat.Add<int8_t>("a", "I8", "[1,1]", {0}).Add<int8_t>("a_document_tokens", "I8", "[1]", {1});
  EXPECT_THAT(refusal(flat), HasSubstr("it must be [token, layer, k]"));
  Bytes none;
  EXPECT_THAT(refusal(none), HasSubstr("holds no token"));
}

}  // namespace
}  // namespace wideload::statistics
