#include "config/number.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>

#include "base/error.h"

namespace wideload::config {
namespace {

template <class T>
std::string Refusal(std::string_view text, const Limits& limits = {}) {
  try {
    ParseNumber<T>("--n", text, limits);
    return "";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInvalid);
    return e.what();
  }
}

TEST(ParseNumber, TakesEveryValueOfItsType) {
  EXPECT_EQ(ParseNumber<uint64_t>("--n", "18446744073709551615", {}), UINT64_MAX);
  EXPECT_EQ(ParseNumber<int64_t>("--n", "-9223372036854775808", {}), INT64_MIN);
  EXPECT_EQ(ParseNumber<int32_t>("--n", "+2147483647", {}), INT32_MAX);
  EXPECT_EQ(ParseNumber<int32_t>("--n", "010", {}), 10);
  EXPECT_EQ(ParseNumber<double>("--n", "-1.5e-3", {}), -1.5e-3);
}

TEST(ParseNumber, SaysWhatATypeHoldsWhenAValueIsBeyondIt) {
  EXPECT_EQ(Refusal<uint64_t>("18446744073709551616"),
            "--n is 18446744073709551616; allowed: 0 to 18446744073709551615");
  EXPECT_EQ(Refusal<uint64_t>("-1"), "--n is -1; allowed: 0 to 18446744073709551615");
  EXPECT_EQ(Refusal<int32_t>("3000000000", {.min = 0}),
            "--n is 3000000000; allowed: 0 to 2147483647");
}

TEST(ParseNumber, TakesBothEndsUnlessTheyAreExcluded) {
  const Limits closed = {.min = 1, .max = 3};
  const Limits open = {.min = 1, .max = 3, .min_excluded = true, .max_excluded = true};
  for (const char* text : {"1", "2", "3"}) EXPECT_EQ(Refusal<int64_t>(text, closed), "");
  EXPECT_EQ(Refusal<int64_t>("0", closed), "--n is 0; allowed: 1 to 3");
  EXPECT_EQ(Refusal<int64_t>("1", open), "--n is 1; allowed: 2 to 2");
  EXPECT_EQ(Refusal<double>("2.9", open), "");
  EXPECT_EQ(Refusal<double>("3", open), "--n is 3; allowed: above 1 and below 3");
}

TEST(ParseNumber, RefusesWhatIsNoNumberOrHasMoreBehindIt) {
  for (const char* text : {"", " 1", "1 ", "1.5", "1e3", "0x10", "1_000", "+-1", "++1", "many"})
    EXPECT_NE(Refusal<int32_t>(text), "") << text;
  for (const char* text : {"", ".", "1.5.5", "nan", "inf", "-inf", "1e999", "warm"})
    EXPECT_EQ(Refusal<double>(text), fmt::format("--n is {}; allowed: a finite number", text));
}

TEST(LimitsText, SaysWhichEndsAreExcluded) {
  EXPECT_EQ(LimitsText({}), "");
  EXPECT_EQ(LimitsText({.min = 0}), "0 or more");
  EXPECT_EQ(LimitsText({.max = 7}), "at most 7");
  EXPECT_EQ(LimitsText({.min = 0.1, .max = 86400}), "0.1 to 86400");
  EXPECT_EQ(LimitsText({.min = 0, .min_excluded = true}), "above 0");
  EXPECT_EQ(LimitsText({.min = 0, .max = 1, .min_excluded = true}), "above 0 and at most 1");
  EXPECT_EQ(LimitsText({.min = 0, .max = 1, .max_excluded = true}), "0 to below 1");
}

}  // namespace
}  // namespace wideload::config
