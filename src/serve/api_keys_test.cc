#include "serve/api_keys.h"

#include <gtest/gtest.h>

#include "checkpoint/test_folder.h"

namespace wideload::serve {
namespace {

ApiKeys KeysOf(const std::string& text) {
  const checkpoint::TestFolder folder;
  folder.Write("keys", text);
  return ApiKeys::FromFile(folder.path() + "/keys");
}

TEST(ApiKeys, AreTheLinesOfTheirFile) {
  const ApiKeys keys =
      KeysOf("# of two people\nfirst-key-0001\r\n\nsecond-key-0002  \n#third-key-0003");
  EXPECT_EQ(keys.Find("Bearer first-key-0001"), 0);
  EXPECT_EQ(keys.Find("Bearer second-key-0002"), 1);
  EXPECT_EQ(keys.Find("bearer first-key-0001"), 0);
  for (const char* wrong :
       {"Bearer #third-key-0003", "Bearer ", "Bearer first-key-000", "Bearer first-key-00011",
        "first-key-0001", "Basic first-key-0001", "Bearer first-KEY-0001", "bear", ""})
    EXPECT_EQ(keys.Find(wrong), std::nullopt) << wrong;
}

TEST(ApiKeys, MayBeShort) { EXPECT_EQ(KeysOf("a\n").Find("Bearer a"), 0); }

TEST(ApiKeys, OfAFileAreAtLeastOne) { EXPECT_THROW(KeysOf("# none\n"), Error); }

TEST(ApiKeys, OfNoneAreEmpty) { EXPECT_TRUE(ApiKeys().empty()); }

TEST(SaltedHash, DependsOnSaltAndText) {
  const Hash salt = RandomBytes();
  EXPECT_TRUE(IsEqual(SaltedHash(salt, "a"), SaltedHash(salt, "a")));
  EXPECT_FALSE(IsEqual(SaltedHash(salt, "a"), SaltedHash(salt, "b")));
  EXPECT_FALSE(IsEqual(SaltedHash(salt, "a"), SaltedHash(RandomBytes(), "a")));
  // HMAC-SHA-256 of "" under 32 zeros, which pad to the same block as an empty key does.
  EXPECT_EQ(SaltedHash(Hash{}, "").front(), 0xb6);
}

}  // namespace
}  // namespace wideload::serve
