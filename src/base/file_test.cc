#include "base/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>

#include "base/error.h"
#include "base/mapping_table.h"
#include "base/temporary.h"
#include "base/testing.h"

namespace wideload {
namespace {

constexpr uint64_t kAny = 1 << 20;

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
  EXPECT_EQ(ReadFile(Path("a"), kAny), "second");
  EXPECT_EQ(MappedFile(Path("a")).bytes().size(), 6u);
}

TEST_F(FileTest, LeavesTheOldFileWhenNotCommitted) {
  WriteFileWhole(Path("a"), "old");
  { WholeFileWriter(Path("a")).Append("half of the n"); }
  EXPECT_EQ(ReadFile(Path("a"), kAny), "old");
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

TEST_F(FileTest, KeepsTheLinkAndTheModeOfAnOutput) {
  WriteFileWhole(Path("real"), "old");
  std::filesystem::permissions(Path("real"), std::filesystem::perms(0600));
  std::filesystem::create_directory(Path("links"));
  std::filesystem::create_symlink("../real", Path("links/near"));
  std::filesystem::create_symlink(Path("links/near"), Path("far"));
  WriteFileWhole(Path("far"), "new");
  EXPECT_TRUE(std::filesystem::is_symlink(Path("far")));
  EXPECT_TRUE(std::filesystem::is_symlink(Path("links/near")));
  EXPECT_EQ(ReadFile(Path("real"), kAny), "new");
  EXPECT_EQ(std::filesystem::status(Path("real")).permissions(), std::filesystem::perms(0600));
  std::filesystem::create_symlink("later", Path("dangling"));
  WriteFileWhole(Path("dangling"), "made");
  EXPECT_EQ(ReadFile(Path("later"), kAny), "made");
  std::filesystem::create_symlink("round", Path("round"));
  EXPECT_THROW(WriteFileWhole(Path("round"), "x"), Error);
}

TEST_F(FileTest, WritesToADescriptorOfThisProcessWhereItStands) {
  const Descriptor file(::open(Path("a").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_EQ(::write(file.get(), "before ", 7), 7);
  const std::string name = fmt::format("/dev/fd/{}", file.get());
  CheckWritable(name);
  WriteFileWhole(name, "through ");
  std::filesystem::create_symlink(fmt::format("/proc/self/fd/{}", file.get()), Path("link"));
  WriteFileWhole(Path("link"), "and through ");
  ASSERT_EQ(::write(file.get(), "after", 5), 5);
  EXPECT_EQ(ReadFile(Path("a"), kAny), "before through and through after");
  EXPECT_TRUE(std::filesystem::is_symlink(Path("link")));
  const Descriptor reader(::open(Path("a").c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_THROW(CheckWritable(fmt::format("/dev/fd/{}", reader.get())), Error);
}

TEST_F(FileTest, FollowsNoLinkThatSomebodyPlantsBesideTheOutput) {
  WriteFileWhole(Path("victim"), "precious");
  std::filesystem::create_symlink(Path("victim"), Path(fmt::format("out.{}.part", ::getpid())));
  WholeFileWriter writer(Path("out"));
  writer.Append("text");
  writer.Commit();
  EXPECT_EQ(ReadFile(Path("victim"), kAny), "precious");
  EXPECT_EQ(ReadFile(Path("out"), kAny), "text");
}

TEST_F(FileTest, OpensNoTemporaryFileOverWhatIsThere) {
  WriteFileWhole(Path("victim"), "precious");
  WriteFileWhole(Path("file"), "precious");
  std::filesystem::create_symlink(Path("victim"), Path("link"));
  std::filesystem::create_symlink(Path("nowhere"), Path("dangling"));
  std::filesystem::create_directory(Path("folder"));
  const Descriptor here(::open(folder_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (const char* const name : {"file", "link", "dangling", "folder"})
    EXPECT_FALSE(OpenNewFile(here, name, 0600).is_open()) << name;
  EXPECT_EQ(ReadFile(Path("victim"), kAny), "precious");
  EXPECT_EQ(ReadFile(Path("file"), kAny), "precious");
  EXPECT_FALSE(FileExists(Path("nowhere")));
  EXPECT_TRUE(OpenNewFile(here, "new", 0600).is_open());
}

// What a process leaves that is killed while it writes the folder `path`.
void WriteAndGetKilled(const std::string& path) {
  const pid_t child = ::fork();
  if (child == 0) {
    const WholeFolderWriter writer(path);
    WriteFileWhole(writer.PathOf("part"), "text");
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
}

TEST_F(FileTest, RemovesWhatADeadWriterLeftAndNothingElse) {
  std::filesystem::create_directory(Path("mine.part"));
  WriteFileWhole(Path(".wideload-notes.part"), "a user's");
  std::filesystem::create_symlink(Path("mine.part"), Path(".wideload-0123456789abcdef.part"));
  const WholeFolderWriter living(Path("living"));
  WriteAndGetKilled(Path("dead"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 5);
  WriteFileWhole(Path("out"), "text");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 5);
  EXPECT_TRUE(std::filesystem::exists(Path("mine.part")));
  EXPECT_TRUE(std::filesystem::exists(Path(".wideload-notes.part")));
  EXPECT_TRUE(std::filesystem::is_symlink(Path(".wideload-0123456789abcdef.part")));
  EXPECT_NO_THROW(WriteFileWhole(living.PathOf("still"), "there"));
}

TEST_F(FileTest, RemovesWhatIsOnItsWayWhenASignalEndsTheProcess) {
  const WholeFolderWriter writer(Path("folder"));
  WriteFileWhole(writer.PathOf("part"), "text");
  WholeFileWriter file(Path("file"));
  file.Append("text");
  RemoveTemporaries();  // as the handler does
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(FileTest, ReplacesAFolderAsAWhole) {
  std::filesystem::create_directory(Path("real"));
  WriteFileWhole(Path("real/old"), "x");
  std::filesystem::create_symlink("real", Path("link"));
  {
    const WholeFolderWriter unfinished(Path("link"));
    WriteFileWhole(unfinished.PathOf("new"), "y");
  }
  EXPECT_TRUE(FileExists(Path("real/old")));
  WholeFolderWriter writer(Path("link/"));
  WriteFileWhole(writer.PathOf("new"), "y");
  writer.Commit();
  EXPECT_TRUE(std::filesystem::is_symlink(Path("link")));
  EXPECT_EQ(ReadFile(Path("real/new"), kAny), "y");
  EXPECT_FALSE(FileExists(Path("real/old")));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 2);
  WholeFolderWriter first(Path("first"));
  first.Commit();
  EXPECT_TRUE(IsDirectory(Path("first")));
  EXPECT_THROW(WholeFolderWriter(Path("none/such")), Error);
}

TEST_F(FileTest, RefusesAFolderWhereNoneCanBe) {
  std::filesystem::create_symlink("loop", Path("loop"));
  WriteFileWhole(Path("file"), "x");
  const std::string places[] = {Path("loop"),
                                Path("loop/x"),
                                Path("file/x"),
                                Path(std::string(300, 'a')),
                                Path("none/such"),
                                "",
                                "/"};
  for (const std::string& place : places) {
    EXPECT_THROW(CheckFolderWritable(place), Error) << place;
    EXPECT_THROW(WholeFolderWriter{place}, Error) << place;
  }
  EXPECT_NO_THROW(CheckFolderWritable(Path("new/")));
}

TEST_F(FileTest, WritesAtAnyPlaceOfAFile) {
  WholeFileWriter writer(Path("a"));
  writer.Append("ab");
  writer.WriteAt(6, std::as_bytes(std::span("gh", 2)));
  writer.Append("cdef");
  writer.Commit();
  EXPECT_EQ(ReadFile(Path("a"), kAny), "abcdefgh");
}

TEST_F(FileTest, CheckWritableLeavesNothingBehind) {
  CheckWritable(Path("a"));
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
  EXPECT_THROW(CheckWritable(Path("no/a")), Error);
  EXPECT_THROW(CheckWritable(folder_.string()), Error);
}

TEST_F(FileTest, RefusesMissingFilesFoldersAndLargeFiles) {
  EXPECT_THROW(ReadFile(Path("none"), kAny), Error);
  EXPECT_THROW(MappedFile{Path("none")}, Error);
  EXPECT_THROW(MappedFile{folder_.string()}, Error);
  EXPECT_THROW(WriteFileWhole(Path("no/such/folder"), "x"), Error);
  EXPECT_THROW(WriteFileWhole(folder_.string(), "x"), Error);
  WriteFileWhole(Path("a"), "12345");
  EXPECT_THROW(ReadFile(Path("a"), 4), Error);
}

TEST_F(FileTest, ReadsNoMoreOfAStreamThanIsAllowed) {
  EXPECT_THROW(ReadFile("/dev/zero", 1 << 20), Error);
  WriteFileWhole(Path("a"), "1234");
  EXPECT_EQ(ReadFile(Path("a"), 4), "1234");
}

TEST_F(FileTest, NamesAMappedFileThatIsCutShort) {
  const std::string text(size_t{3} << 16, 'x');
  WriteFileWhole(Path("a"), text);
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(pipe[1], STDERR_FILENO);
    NameUnreadableMappings();
    MappedFile moved(Path("a"));
    const MappedFile file = std::move(moved);
    std::filesystem::resize_file(Path("a"), 1 << 16);
    volatile std::byte last = file.bytes()[text.size() - 1];
    ::_exit(static_cast<int>(last));
  }
  ::close(pipe[1]);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 1);
  std::array<char, 512> said{};
  ASSERT_GT(::read(pipe[0], said.data(), said.size() - 1), 0);
  ::close(pipe[0]);
  EXPECT_NE(
      std::string(said.data()).find(Path("a") + ": byte 196607 cannot be read: the file was cut"),
      std::string::npos)
      << said.data();
}

TEST_F(FileTest, MapsAnEmptyFile) {
  WriteFileWhole(Path("empty"), "");
  EXPECT_TRUE(MappedFile(Path("empty")).bytes().empty());
}

TEST_F(FileTest, RefusesToMapAPipeWithoutWaitingForItsWriter) {
  const TimeLimit limit;
  ASSERT_EQ(::mkfifo(Path("pipe").c_str(), 0600), 0);
  EXPECT_THROW(MappedFile(Path("pipe")), Error);
}

}  // namespace
}  // namespace wideload
