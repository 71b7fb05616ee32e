#include "base/page_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <string>
#include <thread>

#include "base/error.h"

namespace wideload {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

int ThisThreadsPolicy() {
  int mode = -1;
  ::syscall(SYS_get_mempolicy, &mode, nullptr, 0, nullptr, 0);
  return mode;
}

TEST(NumaPolicy, HasThreeNames) {
  EXPECT_EQ(ParseNumaPolicy("off"), NumaPolicy::kOff);
  EXPECT_EQ(ParseNumaPolicy("interleave"), NumaPolicy::kInterleave);
  EXPECT_EQ(ParseNumaPolicy("bind"), NumaPolicy::kBind);
  EXPECT_THROW(ParseNumaPolicy("Bind"), Error);
}

TEST(ParseIdList, ReadsRangesAndNothingElse) {
  EXPECT_THAT(ParseIdList("0"), ElementsAre(0));
  EXPECT_THAT(ParseIdList("0-2,5,8-9"), ElementsAre(0, 1, 2, 5, 8, 9));
  for (const char* text : {"", "a", "1-", "3-1", "1,,2", "1 ", "1,", "0-99999999", "-1"})
    EXPECT_THAT(ParseIdList(text), IsEmpty()) << text;
}

TEST(NumaNodes, AreOneOrMore) { EXPECT_GE(NumaNodes().size(), 1U); }

TEST(NumaScope, HoldsForItsThreadAndThoseItStartsUntilItEnds) {
  const std::vector<int> nodes = NumaNodes();
  for (const NumaPolicy policy : {NumaPolicy::kInterleave, NumaPolicy::kBind}) {
    {
      const NumaScope scope(policy, nodes);
      if (!scope.note().empty()) GTEST_SKIP() << scope.note();
      const int mode = policy == NumaPolicy::kInterleave ? MPOL_INTERLEAVE : MPOL_BIND;
      EXPECT_EQ(ThisThreadsPolicy(), mode);
      std::thread([&] { EXPECT_EQ(ThisThreadsPolicy(), mode); }).join();
    }
    EXPECT_EQ(ThisThreadsPolicy(), MPOL_DEFAULT);
  }
  const NumaScope outer(NumaPolicy::kInterleave, nodes);
  { const NumaScope inner(NumaPolicy::kBind, nodes); }
  EXPECT_EQ(ThisThreadsPolicy(), MPOL_INTERLEAVE);
}

TEST(NumaScope, SaysWhyNothingWasChosen) {
  EXPECT_EQ(NumaScope(NumaPolicy::kOff).note(), "");
  const std::vector<int> nowhere = {63};  // no such node here
  if (NumaNodes().back() < 63) {
    EXPECT_THAT(NumaScope(NumaPolicy::kBind, nowhere).note(),
                testing::HasSubstr("does not let this process choose"));
  }
  if (NumaNodes().size() == 1) {
    EXPECT_THAT(NumaScope(NumaPolicy::kInterleave).note(), testing::HasSubstr("one NUMA node"));
  }
}

// The flags of the mapping that begins there, as Linux tells them.
std::string FlagsOfMapping(const void* begin) {
  const std::string start = fmt::format("{:x}-", reinterpret_cast<uintptr_t>(begin));
  std::ifstream in("/proc/self/smaps");
  bool is_it = false;
  for (std::string line; std::getline(in, line);) {
    is_it = is_it || line.starts_with(start);
    if (is_it && line.starts_with("VmFlags:")) return line + " ";
  }
  return "";
}

TEST(PreferHugePages, AsksForThoseOfLargeMemoryAlone) {
  if (HugePageMode(false).empty()) GTEST_SKIP() << "the kernel has no transparent huge pages";
  for (const size_t bytes : {size_t{8} << 20, size_t{1} << 20}) {
    // With a page behind it that nobody may use, so that it is a mapping of its own.
    void* const mapping =
        ::mmap(nullptr, bytes + 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(mapping, MAP_FAILED);
    ASSERT_EQ(::mprotect(mapping, bytes, PROT_READ | PROT_WRITE), 0);
    PreferHugePages({static_cast<std::byte*>(mapping), bytes});
    const std::string flags = FlagsOfMapping(mapping);
    EXPECT_EQ(flags.find(" hg ") != std::string::npos, bytes > size_t{4} << 20) << flags;
    ::munmap(mapping, bytes + 4096);
  }
}

// Whatever the system grants, the bytes stay.
TEST(UseHugePages, ChangesNoByte) {
  constexpr size_t kBytes = size_t{6} << 20;
  for (const bool is_shared : {false, true}) {
    void* const mapping = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                                 (is_shared ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(mapping, MAP_FAILED);
    auto* const bytes = static_cast<std::byte*>(mapping);
    std::memset(bytes, 7, kBytes);
    const std::string note = UseHugePages({bytes + 100, kBytes - 200}, is_shared);
    EXPECT_TRUE(note.empty() || note.find("huge pages") != std::string::npos) << note;
    for (size_t i = 0; i < kBytes; i += 511) ASSERT_EQ(bytes[i], std::byte{7});
    ::munmap(mapping, kBytes);
  }
  std::byte few[10] = {};
  EXPECT_EQ(UseHugePages(few, false), "");
}

}  // namespace
}  // namespace wideload
