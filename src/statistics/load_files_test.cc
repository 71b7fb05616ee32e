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

TEST(Routing, ReadsAnswersAndTasks) {
  Bytes answers;
  answers.Add<uint8_t>("expert_ids", "U8", "[3,1,2]", {0, 1, 2, 1, 3, 0});
  answers.Add<int64_t>("answer_tokens", "I64", "[2]", {1, 2});
  const eplb::RoutingTrace one = RoutingOfFile(answers.File());
  EXPECT_EQ(one.num_experts, 4);
  EXPECT_EQ(one.top_k, 2);
  EXPECT_EQ(one.tasks[0].document_tokens, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(RoutingLoads(one).layers.at(0), (std::vector<double>{2, 2, 1, 1}));

  Bytes tasks;
  tasks.Add<int16_t>("a", "I16", "[1,2,1]", {0, 5});
  tasks.Add<int32_t>("a_document_tokens", "I32", "[1]", {1});
  tasks.Add<int64_t>("b", "I64", "[2,2,1]", {1, 2, 3, 4});
  tasks.Add<uint64_t>("b_document_tokens", "U64", "[2]", {2, 0});
  const eplb::RoutingTrace two = RoutingOfFile(tasks.File(), 8);
  EXPECT_EQ(two.num_experts, 8);
  EXPECT_EQ(two.NumTokens(two.tasks[1]), 2);
  EXPECT_EQ(RoutingLoads(two).layers.at(1)[5], 1);
  EXPECT_EQ(two.tasks[1].document_tokens, (std::vector<int64_t>{2, 0}));
  EXPECT_EQ(two.tasks[0].expert_ids, (std::vector<uint16_t>{0, 5}));
  EXPECT_EQ(two.tasks[1].name, "b");
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
