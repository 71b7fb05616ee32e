#include "base/shared_memory.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <utility>

#include "base/error.h"

namespace wideload {
namespace {

using testing::HasSubstr;

// A folder of its own in memory, so that no other test or job sees these names.
class SharedMemoryTest : public testing::Test {
 protected:
  SharedMemoryTest() {
    std::string pattern = "/dev/shm/shared_memory_test_XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
  }
  ~SharedMemoryTest() override { std::filesystem::remove_all(folder_); }
  SegmentName Name(const std::string& name, const std::string& job = "job") const {
    return {.job = job, .name = name, .folder = folder_};
  }
  int NumFiles() const {
    int count = 0;
    for ([[maybe_unused]] const auto& file : std::filesystem::directory_iterator(folder_)) ++count;
    return count;
  }
  std::string folder_;
};

// Runs body in a child that then ends without any clean-up; returns when it has ended.
void InChildThatDies(const std::function<void()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    body();
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
}

// A child that holds a segment until it is killed.
class LivingChild {
 public:
  explicit LivingChild(const std::function<void()>& body) {
    int ready[2];
    EXPECT_EQ(::pipe(ready), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      body();
      EXPECT_EQ(::write(ready[1], "r", 1), 1);
      while (true) ::pause();
    }
    char byte = 0;
    EXPECT_EQ(::read(ready[0], &byte, 1), 1);
    ::close(ready[0]);
    ::close(ready[1]);
  }
  ~LivingChild() { Kill(); }
  void Kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(std::exchange(pid_, 0), nullptr, 0);
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = 0;
};

std::string ErrorOf(const std::function<void()>& body, ErrorKind kind) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

TEST_F(SharedMemoryTest, ProcessesSeeEachOthersBytes) {
  SharedMemory memory = SharedMemory::Create(Name("a"), 10'000);
  EXPECT_EQ(memory.size(), 10'000);
  for (const std::byte b : memory.bytes()) ASSERT_EQ(b, std::byte{0});
  InChildThatDies([&] {
    SharedMemory seen = SharedMemory::Attach(Name("a"));
    std::memcpy(seen.data() + 9'995, "hello", 5);
  });
  EXPECT_EQ(std::memcmp(memory.data() + 9'995, "hello", 5), 0);
  EXPECT_EQ(memory.owner(), ThisProcess());
}

TEST_F(SharedMemoryTest, TheNameGoesWithItsMakersHandleOrAtUnlink) {
  {
    SharedMemory memory = SharedMemory::Create(Name("a"), 100);
    SharedMemory attached = SharedMemory::Attach(Name("a"));
    EXPECT_EQ(NumFiles(), 1);
    memory.Unlink();
    EXPECT_EQ(NumFiles(), 0);
    attached.data()[7] = std::byte{42};
    EXPECT_EQ(memory.data()[7], std::byte{42});
    SharedMemory other = SharedMemory::Create(Name("a"), 100);
    memory.Unlink();  // does not touch the new one
    EXPECT_EQ(NumFiles(), 1);
    SharedMemory moved = std::move(other);
    EXPECT_EQ(NumFiles(), 1);
  }
  EXPECT_EQ(NumFiles(), 0);
}

TEST_F(SharedMemoryTest, AForkedChildThatEndsInOrderDoesNotTakeTheNameAway) {
  auto memory = std::make_unique<SharedMemory>(SharedMemory::Create(Name("a"), 100));
  InChildThatDies([&] { memory.reset(); });
  EXPECT_EQ(NumFiles(), 1);
}

TEST_F(SharedMemoryTest, WhatADeadOwnerLeftIsReplacedAtCreate) {
  InChildThatDies([&] { new SharedMemory(SharedMemory::Create(Name("a"), 50'000)); });
  ASSERT_EQ(NumFiles(), 1);
  SharedMemory memory = SharedMemory::Create(Name("a"), 100);
  EXPECT_EQ(memory.owner(), ThisProcess());
  EXPECT_EQ(NumFiles(), 1);
}

TEST_F(SharedMemoryTest, OnlyWhatDeadOwnersLeftIsRemoved) {
  InChildThatDies([&] { new SharedMemory(SharedMemory::Create(Name("dead"), 100)); });
  InChildThatDies([&] { new SharedMemory(SharedMemory::Create(Name("dead", "other"), 100)); });
  const LivingChild living([&] { new SharedMemory(SharedMemory::Create(Name("living"), 100)); });
  std::ofstream(folder_ + "/wideload.job.text") << "a file of somebody else";
  std::ofstream(folder_ + "/unrelated") << "x";
  EXPECT_EQ(RemoveDeadSegments(folder_), 2);
  EXPECT_EQ(NumFiles(), 3);
  EXPECT_NO_THROW(SharedMemory::Attach(Name("living")));
}

TEST_F(SharedMemoryTest, ListsSegmentsOfAnyNameWithTheirOwners) {
  SegmentName named = Name("");
  named.file = "moe_shared_l3_lr0_all";
  InChildThatDies([&] {
    static SharedMemory left = SharedMemory::Create(named, 4096);  // without its destructor
  });
  std::ofstream(folder_ + "/moe_shared_l4_lr0_all") << "of another program";
  const SharedMemory living = SharedMemory::Create(Name("b"), 100);
  const std::vector<SegmentInfo> segments = ListSegments(folder_);
  ASSERT_EQ(segments.size(), 2U);
  EXPECT_EQ(segments[0].path, folder_ + "/moe_shared_l3_lr0_all");
  EXPECT_EQ(segments[0].num_bytes, 4096);
  EXPECT_FALSE(segments[0].is_owner_alive);
  EXPECT_EQ(segments[1].path, folder_ + "/wideload.job.b");
  EXPECT_TRUE(segments[1].is_owner_alive);
  EXPECT_EQ(segments[1].owner, ThisProcess());
  EXPECT_TRUE(SharedMemory::Exists(named));
  EXPECT_EQ(RemoveDeadSegments(folder_), 1);
  EXPECT_FALSE(SharedMemory::Exists(named));
  EXPECT_EQ(NumFiles(), 2);
}

TEST_F(SharedMemoryTest, WhileAnAttachedProcessLivesNothingIsRemoved) {
  LivingChild maker([&] { new SharedMemory(SharedMemory::Create(Name("a"), 100)); });
  {
    SharedMemory attached = SharedMemory::Attach(Name("a"));
    maker.Kill();
    EXPECT_EQ(RemoveDeadSegments(folder_), 0);
  }
  EXPECT_EQ(RemoveDeadSegments(folder_), 1);
}

TEST_F(SharedMemoryTest, ASurvivorRemovesWhatDeadOwnersOfItsOwnRunLeft) {
  LivingChild maker([&] { new SharedMemory(SharedMemory::Create(Name("a"), 100)); });
  LivingChild other([&] { new SharedMemory(SharedMemory::Create(Name("b", "other"), 100)); });
  const LivingChild living([&] { new SharedMemory(SharedMemory::Create(Name("c"), 100)); });
  const SharedMemory attached = SharedMemory::Attach(Name("a"));
  const SharedMemory of_other = SharedMemory::Attach(Name("b", "other"));
  maker.Kill();
  other.Kill();
  EXPECT_EQ(RemoveDeadSegments(folder_, "job"), 1);
  EXPECT_EQ(NumFiles(), 2);
  EXPECT_NO_THROW(SharedMemory::Attach(Name("b", "other")));
}

TEST_F(SharedMemoryTest, ANameInUseByALivingJobIsRefusedWithThatJob) {
  const LivingChild living([&] { new SharedMemory(SharedMemory::Create(Name("a"), 100)); });
  const std::string text =
      ErrorOf([&] { SharedMemory::Create(Name("a"), 100); }, ErrorKind::kResource);
  EXPECT_THAT(text, HasSubstr("in use by the living job 'job'"));
  EXPECT_THAT(text, HasSubstr(std::to_string(living.pid())));
}

TEST_F(SharedMemoryTest, BadNamesSizesAndFilesAreRefused) {
  ErrorOf([&] { SharedMemory::Create(Name("a/b"), 100); }, ErrorKind::kInvalid);
  ErrorOf([&] { SharedMemory::Create(Name(""), 100); }, ErrorKind::kInvalid);
  ErrorOf([&] { SharedMemory::Create(Name(std::string(300, 'a')), 100); }, ErrorKind::kInvalid);
  ErrorOf([&] { SharedMemory::Create(Name("a"), 0); }, ErrorKind::kInvalid);
  ErrorOf([&] { SharedMemory::Attach(Name("missing")); }, ErrorKind::kNotFound);
  std::ofstream(folder_ + "/wideload.job.short") << "abc";
  ErrorOf([&] { SharedMemory::Attach(Name("short")); }, ErrorKind::kCorrupt);
  ErrorOf([&] { SharedMemory::Create(Name("short"), 10); }, ErrorKind::kResource);
  SharedMemory memory = SharedMemory::Create(Name("cut"), 10'000);
  ASSERT_EQ(::truncate((folder_ + "/wideload.job.cut").c_str(), 5'000), 0);
  ErrorOf([&] { SharedMemory::Attach(Name("cut")); }, ErrorKind::kCorrupt);
}

TEST_F(SharedMemoryTest, AFolderThatIsTooSmallIsAnErrorWithBothSizes) {
  if (::mount("tmpfs", folder_.c_str(), "tmpfs", 0, "size=1m") != 0)
    GTEST_SKIP() << "mounting a small tmpfs needs root: " << std::strerror(errno);
  const std::string text =
      ErrorOf([&] { SharedMemory::Create(Name("a"), 4 << 20); }, ErrorKind::kResource);
  EXPECT_THAT(text, HasSubstr("needs 4.0 MiB"));
  EXPECT_THAT(text, HasSubstr("1.0 MiB free of 1.0 MiB"));
  EXPECT_THAT(text, HasSubstr("--shm-size"));
  EXPECT_EQ(NumFiles(), 0);
  SharedMemory fits = SharedMemory::Create(Name("a"), 1'000'000);
  std::memset(fits.data(), 1, 1'000'000);
  fits = {};
  ::umount2(folder_.c_str(), MNT_DETACH);
}

TEST_F(SharedMemoryTest, AHundredKilledOwnersLeaveNothing) {
  for (int i = 0; i < 100; ++i) {
    InChildThatDies([&] {
      RemoveDeadSegments(folder_);
      for (const char* name : {"a", "b"})
        new SharedMemory(SharedMemory::Create(Name(name), 1 << 16));
    });
    ASSERT_LE(NumFiles(), 2);
  }
  EXPECT_EQ(RemoveDeadSegments(folder_), 2);
  EXPECT_EQ(NumFiles(), 0);
}

TEST(ProcessWatch, SeesTheEndOfAProcessThatNobodyReaped) {
  int hold[2];
  ASSERT_EQ(::pipe(hold), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    char byte = 0;
    ::close(hold[1]);
    while (::read(hold[0], &byte, 1) > 0) {
    }
    ::_exit(0);
  }
  ProcessStamp stamp{.pid = child};
  EXPECT_FALSE(IsAlive(stamp)) << "another start time is another process";
  std::ifstream stat("/proc/" + std::to_string(child) + "/stat");
  const std::string text((std::istreambuf_iterator<char>(stat)), {});
  std::istringstream fields(text.substr(text.rfind(')') + 2));
  std::string field;
  for (int i = 3; i <= 22; ++i) fields >> field;
  stamp.start_ticks = std::stoull(field);
  EXPECT_TRUE(IsAlive(stamp));
  const ProcessWatch watch(stamp);
  EXPECT_FALSE(watch.HasEnded());
  ::close(hold[0]);
  ::close(hold[1]);  // the child ends
  while (!watch.HasEnded()) ::sched_yield();
  EXPECT_FALSE(IsAlive(stamp));
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(ProcessWatch(stamp).HasEnded());
}

}  // namespace
}  // namespace wideload
