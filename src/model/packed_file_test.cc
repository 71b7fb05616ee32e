#include "model/packed_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "base/error.h"
#include "checkpoint/test_folder.h"
#include "model/registry.h"
#include "model/transformer.h"
#include "moe/expert_sums.h"

namespace wideload::model {
namespace {

using testing::HasSubstr;

class PackedFileTest : public testing::Test {
 protected:
  PackedFileTest() {
    std::string pattern = testing::TempDir() + "packed_file_test_XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    path_ = folder_ + "/experts";
  }
  ~PackedFileTest() override { std::filesystem::remove_all(folder_); }

  static PackedKey Key() {
    return {.kernels = "avx2",
            .checkpoint = "cafe0123",
            .layers = {1, 3},
            .expert_bytes = {{100, 64, 200}, {64, 4000, 65}}};
  }
  // Bytes of an expert that differ from all others'.
  static std::byte ByteOf(size_t layer, size_t expert) {
    return static_cast<std::byte>(1 + 3 * layer + expert);
  }
  void Write(const PackedKey& key, size_t num_layers = 2) const {
    PackedFileWriter writer(path_, key);
    for (size_t layer = 0; layer < num_layers; ++layer)
      for (size_t e = 0; e < key.expert_bytes[layer].size(); ++e) {
        const Buffer buffer = writer.Next(static_cast<int32_t>(layer), static_cast<int32_t>(e));
        const std::span<std::byte> bytes(buffer.data(), static_cast<size_t>(buffer.num_bytes()));
        EXPECT_TRUE(std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{}; }));
        std::ranges::fill(bytes, ByteOf(layer, e));
      }
    if (num_layers == key.expert_bytes.size()) writer.Commit();
  }
  std::string Refusal(const PackedKey& key) const {
    try {
      const PackedFile file(path_, key);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalid);
      EXPECT_THAT(error.what(), HasSubstr(path_));
      return error.what();
    }
    return "";
  }
  size_t NumFiles() const {
    size_t count = 0;
    for ([[maybe_unused]] const auto& file : std::filesystem::directory_iterator(folder_)) ++count;
    return count;
  }
  void Damage(std::streamoff offset) const {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(offset);
    file.put('\x55');
  }

  std::string folder_;
  std::string path_;
};

TEST_F(PackedFileTest, HoldsEveryExpertAligned) {
  Write(Key());
  const PackedFile file(path_, Key());
  for (size_t layer = 0; layer < 2; ++layer)
    for (size_t e = 0; e < 3; ++e) {
      const Buffer buffer = file.BytesOf(static_cast<int32_t>(layer), static_cast<int32_t>(e));
      EXPECT_EQ(buffer.num_bytes(), Key().expert_bytes[layer][e]);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0U);
      for (int64_t i = 0; i < buffer.num_bytes(); ++i)
        ASSERT_EQ(buffer.data()[i], ByteOf(layer, e)) << layer << ", " << e << ", " << i;
    }
}

TEST_F(PackedFileTest, IsRefusedWhenItIsOfSomethingElse) {
  Write(Key());
  PackedKey other = Key();
  other.kernels = "avx512";
  EXPECT_THAT(Refusal(other), HasSubstr("packed for the kernels avx2; this run has avx512"));
  other = Key();
  other.checkpoint = "beef";
  EXPECT_THAT(Refusal(other), HasSubstr("another checkpoint (fingerprint cafe0123"));
  other = Key();
  other.expert_bytes[1][2] = 66;
  EXPECT_THAT(Refusal(other), HasSubstr("table"));
  other = Key();
  other.layers = {1, 4};
  EXPECT_THAT(Refusal(other), HasSubstr("table"));
  EXPECT_EQ(Refusal(Key()), "");
}

TEST_F(PackedFileTest, IsRefusedWhenItIsCutShortDamagedOrAnotherFile) {
  Write(Key());
  std::filesystem::resize_file(path_, std::filesystem::file_size(path_) - 1);
  EXPECT_THAT(Refusal(Key()), HasSubstr("bytes"));
  std::filesystem::resize_file(path_, 60);
  EXPECT_THAT(Refusal(Key()), HasSubstr("no file of packed experts"));
  Write(Key());
  Damage(130);
  EXPECT_THAT(Refusal(Key()), HasSubstr("damaged"));
  Write(Key());
  Damage(8);
  EXPECT_THAT(Refusal(Key()), HasSubstr("layout version"));
  std::ofstream(path_) << std::string(5000, 'x');
  EXPECT_THAT(Refusal(Key()), HasSubstr("no file of packed experts"));
}

TEST_F(PackedFileTest, LeavesNothingWhenItsWriterEndsOrIsKilledBeforeTheEnd) {
  Write(Key(), 1);
  EXPECT_EQ(NumFiles(), 0U);
  const pid_t writer = ::fork();
  if (writer == 0) {
    PackedFileWriter file(path_, Key());
    file.Next(0, 0);
    file.Next(0, 1);
    ::kill(::getpid(), SIGKILL);
  }
  ::waitpid(writer, nullptr, 0);
  // A file system without nameless files: the next writer removes what is left.
  Write(Key());
  EXPECT_EQ(NumFiles(), 1U);
}

// A file is read by programs that pack otherwise unless its version differs.
TEST(PackedBytes, AreThoseOfTheVersionForEveryKernelSetAndFormat) {
  struct Case {
    const char* kernels;
    const char* model;  // bf16, fp8, int4, mxfp4
    uint64_t sum;
  };
  const Case cases[] = {
      {"reference", "tiny-qwen3-moe", 0xe9a7515c71344b60},
      {"reference", "tiny-deepseek-v3-fp8", 0xfc134c37e3560dc8},
      {"reference", "tiny-kimi-k2-int4", 0xd3f40c71b6bcb02a},
      {"reference", "tiny-gpt-oss-mxfp4", 0x665db8be9ff27927},
      {"avx2", "tiny-qwen3-moe", 0x8f1efcadbd39cdfe},
      {"avx2", "tiny-deepseek-v3-fp8", 0xfc134c37e3560dc8},
      {"avx2", "tiny-kimi-k2-int4", 0xd3f40c71b6bcb02a},
      {"avx2", "tiny-gpt-oss-mxfp4", 0x665db8be9ff27927},
      {"avx512", "tiny-qwen3-moe", 0x8f1efcadbd39cdfe},
      {"avx512", "tiny-deepseek-v3-fp8", 0xfc134c37e3560dc8},
      {"avx512", "tiny-kimi-k2-int4", 0xd3f40c71b6bcb02a},
      {"avx512", "tiny-gpt-oss-mxfp4", 0x665db8be9ff27927},
      {"avx512_bf16", "tiny-qwen3-moe", 0x8f1efcadbd39cdfe},
      {"avx512_bf16", "tiny-deepseek-v3-fp8", 0xfc134c37e3560dc8},
      {"avx512_bf16", "tiny-kimi-k2-int4", 0xd3f40c71b6bcb02a},
      {"avx512_bf16", "tiny-gpt-oss-mxfp4", 0x665db8be9ff27927},
  };
  ThreadPool pool("test", 2);
  for (const Case& one : cases) {
    const compute::KernelSet kernels = compute::ParseKernelSet(one.kernels);
    if (!std::ranges::count(compute::SupportedKernelSets(), kernels)) continue;
    const std::string folder = checkpoint::SourceDir() + "/testdata/models/" + one.model;
    checkpoint::Checkpoint weights(folder);
    WeightLoader loader(weights, {.kernels = kernels,
                                  .pool = &pool,
                                  .owns = [](int32_t layer, int32_t) { return layer == 0; }});
    const auto model = LoadTransformer(ReadModel(folder).spec, loader);
    const moe::ExpertSums sums = moe::SumExperts({model->Experts(0, 0)}, pool);
    EXPECT_EQ(std::accumulate(sums.begin(), sums.end(), uint64_t{0}), one.sum)
        << one.kernels << ", " << one.model
        << ": packed otherwise than before; count kVersion up in packed_file.cc";
  }
}

}  // namespace
}  // namespace wideload::model
