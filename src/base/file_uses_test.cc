#include "base/file_uses.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace wideload {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

class FileUsesTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / fmt::format("wideload_file_uses_test.{}", ::getpid());
    fs::create_directories(folder_ / "m");
    WriteFileWhole(Path("data"), "x");
    WriteFileWhole(Path("m/config.json"), "{}");
    WriteFileWhole(Path("m/model.safetensors"), "x");
    WriteFileWhole(Path("m/notes.txt"), "x");
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  // What is said of one input and one output; "" when both may be.
  static std::string Refusal(const std::string& input, const std::string& output) {
    return Refusal(
        {{"--in", input, FileUse::Kind::kInput}, {"--out", output, FileUse::Kind::kOutput}});
  }
  static std::string TwoOutputs(const std::string& a, const std::string& b) {
    return Refusal({{"--a", a, FileUse::Kind::kOutput}, {"--b", b, FileUse::Kind::kOutput}});
  }
  static std::string Refusal(const std::vector<FileUse>& uses) {
    try {
      RefuseSharedFiles(uses);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  }

  fs::path folder_;
};

TEST_F(FileUsesTest, RefusesAnOutputThatIsRead) {
  fs::create_symlink("data", Path("link"));
  fs::create_hard_link(Path("data"), Path("hard"));
  for (const char* name : {"data", "link", "hard", "m/../data"})
    EXPECT_THAT(Refusal(Path("data"), Path(name)), AllOf(HasSubstr("--in"), HasSubstr("--out")))
        << name;
  EXPECT_NE(Refusal(Path("data") + ":loads", Path("data")), "");
  const Descriptor file(::open(Path("data").c_str(), O_WRONLY | O_CLOEXEC));
  EXPECT_NE(Refusal(Path("data"), fmt::format("/dev/fd/{}", file.get())), "");
  EXPECT_EQ(Refusal(Path("data"), Path("other")), "");
}

TEST_F(FileUsesTest, RefusesAnOutputThatAFolderIsReadFor) {
  EXPECT_THAT(Refusal(Path("m"), Path("m/model.safetensors")), HasSubstr("model.safetensors"));
  EXPECT_NE(Refusal(Path("m/"), Path("m/config.json")), "");
  EXPECT_EQ(Refusal(Path("m"), Path("m/notes.txt")), "");
  EXPECT_EQ(Refusal(Path("m"), Path("m/new.safetensors")), "");
}

TEST_F(FileUsesTest, RefusesTwoOutputsOfOneFile) {
  EXPECT_NE(TwoOutputs(Path("new"), Path("m/../new")), "");
  EXPECT_NE(TwoOutputs(Path("data"), Path("data")), "");
  EXPECT_EQ(TwoOutputs(Path("new"), Path("m/new")), "");
  EXPECT_EQ(TwoOutputs("/dev/null", "/dev/null"), "");
  EXPECT_EQ(TwoOutputs(Path("none/such"), Path("none/such")), "");
  EXPECT_EQ(TwoOutputs("", ""), "");
  EXPECT_NE(TwoOutputs("-", "-"), "");
}

TEST_F(FileUsesTest, RefusesAFolderThatIsReplacedWhileSomethingInItIsUsed) {
  const auto refusal = [&](const char* path, FileUse::Kind kind) {
    return Refusal(
        {{"--use", Path(path), kind}, {"--out", Path("m"), FileUse::Kind::kOutputFolder}});
  };
  EXPECT_NE(refusal("m", FileUse::Kind::kInput), "");
  EXPECT_NE(refusal("m/notes.txt", FileUse::Kind::kInput), "");
  EXPECT_NE(refusal("m/new", FileUse::Kind::kOutput), "");
  EXPECT_EQ(refusal("data", FileUse::Kind::kInput), "");
  EXPECT_EQ(Refusal(Path("m/notes.txt"), Path("m")), "") << "no folder is asked for";
}

}  // namespace
}  // namespace wideload
