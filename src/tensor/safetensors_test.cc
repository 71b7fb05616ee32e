#include "tensor/safetensors.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "base/error.h"

namespace wideload {
namespace {

std::string File(const std::string& header, size_t data_bytes) {
  const uint64_t size = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &size, 8);
  return file + header + std::string(data_bytes, '\1');
}

std::string Refusal(const std::string& file) {
  try {
    const SafetensorsFile parsed(std::as_bytes(std::span(file)), "x.safetensors");
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

TEST(Safetensors, WritesWhatItReads) {
  const std::string path =
      (std::filesystem::temp_directory_path() / fmt::format("wl_st.{}", ::getpid())).string();
  const float values[] = {1, 2, 3, 4, 5, 6};
  const std::pair<std::string, TensorView> tensors[] = {
      {"b", TensorView(DType::kF32, {2, 3}, values)}, {"a", TensorView(DType::kF32, {0}, values)}};
  WriteSafetensors(path, tensors, {{"k", "v"}});
  const SafetensorsFile file(path);
  EXPECT_EQ(file.Get("b", DType::kF32, {2, 3}).row<float>(1)[2], 6.0F);
  EXPECT_EQ(file.Get("a").num_bytes(), 0);
  EXPECT_EQ(file.metadata().at("k"), "v");
  EXPECT_THROW(file.Get("c"), Error);
  EXPECT_THROW(file.Get("b", DType::kF32, {3, 2}), Error);
  std::filesystem::remove(path);
}

TEST(Safetensors, NamesWhatIsWrong) {
  const auto tensor = [](const char* begin_end, const char* shape = "[2]") {
    return fmt::format(R"("dtype":"F32","shape":{},"data_offsets":{})", shape, begin_end);
  };
  EXPECT_EQ(Refusal(File("{\"a\":{" + tensor("[0,8]") + "}}", 8)), "accepted");
  EXPECT_NE(Refusal("abc").find("at least 8"), std::string::npos);
  EXPECT_NE(Refusal(File("{}", 0).substr(0, 9)).find("header length is 2"), std::string::npos);
  EXPECT_NE(Refusal(File("{\"a\":{" + tensor("[0,8]") + "}}", 7)).find("7 data bytes"),
            std::string::npos);
  EXPECT_NE(Refusal(File("{\"a\":{" + tensor("[0,4]") + "}}", 8)).find("must have 8"),
            std::string::npos);
  EXPECT_NE(Refusal(File("{\"a\":{" + tensor("[0,8]") + "},\"b\":{" + tensor("[4,12]") + "}}", 12))
                .find("overlap"),
            std::string::npos);
  EXPECT_NE(Refusal(File("{\"a\":{" + tensor("[0,8]") + "},\"b\":{" + tensor("[9,17]") + "}}", 17))
                .find("gap"),
            std::string::npos);
  EXPECT_NE(Refusal(File("{\"a\":{" + tensor("[0,8]", "[4611686018427387904,4]") + "}}", 8))
                .find("shape"),
            std::string::npos);
  EXPECT_NE(Refusal(File(R"({"a":{"dtype":"Q4","shape":[],"data_offsets":[0,0]}})", 0))
                .find("dtype is Q4"),
            std::string::npos);
  EXPECT_NE(Refusal(File(std::string("{}\0\0\0\0\0\0", 8), 0)).find("zero byte"),
            std::string::npos);
  EXPECT_EQ(Refusal(File("{}      ", 0)), "accepted");
  EXPECT_NE(Refusal(std::string("GGUF\3\0\0\0 and so on", 18)).find("GGUF"), std::string::npos);
  EXPECT_NE(Refusal("PK\3\4 and so on").find("pickle"), std::string::npos);
}

// The first two bytes of this header's length are those of a pickle file.
TEST(Safetensors, ReadsAHeaderWhoseLengthLooksLikeAPickle) {
  for (const size_t header_bytes : {0x0280, 0x0480}) {
    std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
    header.resize(header_bytes, ' ');
    EXPECT_EQ(Refusal(File(header, 1)), "accepted");
  }
}

TEST(Safetensors, ReadsTensorsThatAreNotAlignedToTheirElements) {
  std::string file = File(
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]},"c":{"dtype":"F32","shape":[1],"data_offsets":[9,13]}})",
      13);
  const float values[] = {1.5F, -2.0F, 3.0F};
  std::memcpy(file.data() + file.size() - 12, values, 12);
  const SafetensorsFile parsed(std::as_bytes(std::span(file)), "x");
  EXPECT_EQ(parsed.Get("b").data<float>()[1], -2.0F);
  EXPECT_EQ(parsed.Get("c").data<float>()[0], 3.0F);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(parsed.Get("c").raw()) % sizeof(float), 0U);
}

TEST(Safetensors, RefusesEmptyTensorsWhoseOtherDimensionsOverflow) {
  EXPECT_NE(Refusal(File(R"({"a":{"dtype":"F32","shape":[281474976710656,281474976710656,0],)"
                         R"("data_offsets":[0,0]}})",
                         0))
                .find("fewer than 2^62"),
            std::string::npos);
  EXPECT_EQ(Refusal(File(R"({"a":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]}})", 0)),
            "accepted");
}

TEST(Safetensors, RefusesFieldsOfTheWrongType) {
  const auto refusal = [](const std::string& entry) {
    return Refusal(File("{\"a\":" + entry + "}", 4));
  };
  EXPECT_NE(refusal(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4.0]})").find("data_offsets"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"dtype":"F32","shape":[1],"data_offsets":[4,0]})").find("ascending"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})").find("non-negative"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"dtype":"F32","shape":[1,1,1,1,1,1,1],"data_offsets":[0,4]})")
                .find("at most 6 dimensions"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"shape":[1],"data_offsets":[0,4]})").find("a.dtype is missing"),
            std::string::npos);
  EXPECT_NE(refusal("[]").find("JSON object"), std::string::npos);
  EXPECT_NE(Refusal(File(R"({"__metadata__":{"k":1}})", 0)).find("__metadata__.k"),
            std::string::npos);
  EXPECT_NE(Refusal(File(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                         R"("a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
                         4))
                .find("duplicate"),
            std::string::npos);
}

TEST(Safetensors, NamesAGitLfsPointer) {
  EXPECT_NE(Refusal("version https://git-lfs.github.com/spec/v1\noid sha256:0\n").find("git lfs"),
            std::string::npos);
}

}  // namespace
}  // namespace wideload
