#include "base/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "base/error.h"

namespace wideload {
namespace {

class FileTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::temp_directory_path() / fmt::format("wideload_file_test.{}", ::getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  std::filesystem::path folder_;
};

TEST_F(FileTest, WritesWholeAndReadsBack) {
  WriteFileWhole(Path("a"), "first");
  WriteFileWhole(Path("a"), "second");
  EXPECT_EQ(ReadFile(Path("a")), "second");
  EXPECT_EQ(MappedFile(Path("a")).bytes().size(), 6u);
}

TEST_F(FileTest, LeavesTheOldFileWhenNotCommitted) {
  WriteFileWhole(Path("a"), "old");
  { WholeFileWriter(Path("a")).Append("half of the n"); }
  EXPECT_EQ(ReadFile(Path("a")), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(FileTest, WritesToAPipeInPlace) {
  ASSERT_EQ(::mkfifo(Path("pipe").c_str(), 0600), 0);
  const int reader = ::open(Path("pipe").c_str(), O_RDONLY | O_NONBLOCK);
  CheckWritable(Path("pipe"));
  WriteFileWhole(Path("pipe"), "through");
  char text[16];
  EXPECT_EQ(::read(reader, text, sizeof(text)), 7);
  ::close(reader);
  EXPECT_TRUE(std::filesystem::is_fifo(Path("pipe")));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(FileTest, CheckWritableLeavesNothingBehind) {
  CheckWritable(Path("a"));
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
  EXPECT_THROW(CheckWritable(Path("no/a")), Error);
  EXPECT_THROW(CheckWritable(folder_.string()), Error);
}

TEST_F(FileTest, RefusesMissingFilesFoldersAndLargeFiles) {
  EXPECT_THROW(ReadFile(Path("none")), Error);
  EXPECT_THROW(MappedFile{Path("none")}, Error);
  EXPECT_THROW(MappedFile{folder_.string()}, Error);
  EXPECT_THROW(WriteFileWhole(Path("no/such/folder"), "x"), Error);
  EXPECT_THROW(WriteFileWhole(folder_.string(), "x"), Error);
  WriteFileWhole(Path("a"), "12345");
  EXPECT_THROW(ReadFile(Path("a"), 4), Error);
}

TEST_F(FileTest, MapsAnEmptyFile) {
  WriteFileWhole(Path("empty"), "");
  EXPECT_TRUE(MappedFile(Path("empty")).bytes().empty());
}

}  // namespace
}  // namespace wideload
