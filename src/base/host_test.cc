#include "base/host.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace wideload {
namespace {

HostId With(const char* value) {
  return ThisHost([value](const char* name) -> const char* {
    return std::string(name) == "WIDELOAD_HOST_ID" ? value : nullptr;
  });
}

TEST(ThisHost, IsTheSameForAllProcessesThatShareThisMachine) {
  EXPECT_EQ(With(nullptr), With(nullptr));
  EXPECT_EQ(With("a"), With("a"));
  EXPECT_NE(With(nullptr).text[0], '\0');
}

TEST(ThisHost, IsAnotherOneUnderAnotherGivenName) {
  EXPECT_NE(With("a"), With("b"));
  EXPECT_NE(With("a"), With(nullptr));
}

TEST(ThisHost, RefusesANameThatIsTooLong) {
  try {
    With("123456789012345678901234567890123");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "WIDELOAD_HOST_ID is 33 characters long; at most 32 are allowed");
  }
}

}  // namespace
}  // namespace wideload
