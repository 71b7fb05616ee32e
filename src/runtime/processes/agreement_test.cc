#include "runtime/processes/agreement.h"

#include <gtest/gtest.h>

#include <array>

#include "base/error.h"

namespace wideload::runtime {
namespace {

using Facts = std::vector<Fact>;

TEST(Agreement, IsSilentWhenAllRanksAreAlike) {
  const Facts facts = {{"the version of wideload", "1.0"}, {"--split", "optimal"}};
  EXPECT_EQ(FirstDifference(std::array{facts, facts, facts}), "");
  EXPECT_EQ(FirstDifference(std::array{facts}), "");
}

TEST(Agreement, NamesTheRankTheFactAndBothValues) {
  const Facts expected = {{"the version of wideload", "1.0"}, {"--split", "optimal"}};
  const Facts found = {{"the version of wideload", "1.0"}, {"--split", "first"}};
  EXPECT_EQ(FirstDifference(std::array{expected, expected, found, found}),
            "rank 2: --split is first; rank 0 has optimal, and all ranks must have the same");
}

TEST(Agreement, TakesOtherFactsForAnotherVersion) {
  const Facts expected = {{"--split", "optimal"}};
  EXPECT_NE(FirstDifference(std::array{expected, Facts{}}), "");
  EXPECT_NE(FirstDifference(std::array{expected, Facts{{"--threads", "optimal"}}}), "");
}

TEST(Agreement, TakesTheKernelsThatEveryMachineHas) {
  using compute::KernelSet;
  EXPECT_EQ(CommonKernelSet(std::array{KernelSet::kAmx, KernelSet::kAvx512, KernelSet::kAmx}),
            KernelSet::kAvx512);
  EXPECT_EQ(CommonKernelSet(std::array{KernelSet::kAvx2}), KernelSet::kAvx2);
}

// Values of the FNV reference code.
TEST(Agreement, FingerprintsAsFnv1a) {
  EXPECT_EQ(Fingerprint(""), "cbf29ce484222325");
  EXPECT_EQ(Fingerprint("foobar"), "85944171f73967e8");
}

TEST(Agreement, SendsFactsWhole) {
  const Facts facts = {{"a", ""}, {"--placement", "random:7"}};
  const Facts back = UnpackFacts(PackFacts(facts));
  ASSERT_EQ(back.size(), 2);
  EXPECT_EQ(back[1].name, "--placement");
  EXPECT_EQ(back[1].value, "random:7");
  EXPECT_EQ(back[0].value, "");
}

TEST(Agreement, SendsOutcomesWhole) {
  const Outcome outcome{
      .has_failed = true, .is_told = false, .kind = ErrorKind::kResource, .text = "no memory"};
  EXPECT_EQ(UnpackOutcome(PackOutcome(outcome)), outcome);
  EXPECT_EQ(UnpackOutcome(PackOutcome({})), Outcome{});
}

TEST(Agreement, RefusesWhatNoRankCanMean) {
  std::vector<std::byte> bytes = PackOutcome({.kind = static_cast<ErrorKind>(7)});
  EXPECT_THROW(UnpackOutcome(bytes), Error);
  bytes = PackOutcome({});
  bytes.resize(bytes.size() + 1);
  EXPECT_THROW(UnpackOutcome(bytes), Error);
  EXPECT_THROW(CommonKernelSet(std::array{static_cast<compute::KernelSet>(99)}), Error);
}

}  // namespace
}  // namespace wideload::runtime
