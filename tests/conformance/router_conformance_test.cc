// The router and rotary positions of every kernel set: against the reference, rows alone and in
// batches, and examples worked by hand.
#include <cmath>
#include <limits>
#include <set>

#include "ops_conformance.h"

namespace wideload::compute {
namespace {

constexpr int64_t kBatch = 33;

// Three heads, from an element of theirs on.
HeadPart PartFrom(int64_t first, const TensorView& rows) {
  return {.rows = rows, .heads = 3, .first = first};
}

TEST_P(OpsConformance, RopeAgreesWithTheReferenceAndRowsAreIndependent) {
  for (const int64_t half : {1, 12, 16, 20, 33}) {
    const int64_t head_dim = 2 * half + 7;
    const OwnedTensor cos = RandomTensor(DType::kF32, {kBatch, half}, 1);
    const OwnedTensor sin = RandomTensor(DType::kF32, {kBatch, half}, 2);
    const RopeRows rope = {.cos = cos.view(), .sin = sin.view()};
    const OwnedTensor x = RandomTensor(DType::kF32, {kBatch, 3 * head_dim}, 3);
    for (const RopePairs pairs : {RopePairs::kHalfSplit, RopePairs::kInterleaved}) {
      // All of a head from 0, or its last 2 half elements.
      for (const int64_t first : {0, 7}) {
        const OwnedTensor expected = CopyOf(x.view(), DType::kF32);
        Rope(Reference(), PartFrom(first, expected.view()), pairs, rope);
        const StridedTensor all(x, 4);
        Rope(With(3), PartFrom(first, all.view()), pairs, rope);
        ASSERT_TRUE(IsNear(CopyOf(all.view(), DType::kF32), expected, kSumTolerance)) << half;
        const OwnedTensor one = CopyOf(x.view().Rows(20, 1), DType::kF32);
        Rope(With(1), PartFrom(first, one.view()), pairs,
             {.cos = cos.view().Rows(20, 1), .sin = sin.view().Rows(20, 1)});
        ASSERT_TRUE(SameBits(one.view(), all.view().Rows(20, 1))) << half;
      }
    }
  }
}

TEST_P(OpsConformance, RopeIsAProductAndAMultiplyAddOfEachElement) {
  constexpr int64_t kRows = 3;
  constexpr int64_t kHeads = 2;
  for (const int64_t half : {3, 8, 20}) {
    const int64_t head_dim = 2 * half + 4;
    const OwnedTensor cos = RandomTensor(DType::kF32, {kRows, half}, 1);
    const OwnedTensor sin = RandomTensor(DType::kF32, {kRows, half}, 2);
    const OwnedTensor before = RandomTensor(DType::kF32, {kRows, kHeads * head_dim}, 3);
    for (const RopePairs pairs : {RopePairs::kHalfSplit, RopePairs::kInterleaved}) {
      const OwnedTensor expected = CopyOf(before.view(), DType::kF32);
      const bool is_split = pairs == RopePairs::kHalfSplit;
      for (int64_t i = 0; i < kRows * kHeads * half; ++i) {
        const int64_t head = i / half * head_dim;
        const int64_t a = head + (is_split ? i % half : i % half * 2);
        const int64_t b = a + (is_split ? half : 1);
        const int64_t at = i / half / kHeads * half + i % half;
        const float x = before.at(a);
        const float y = before.at(b);
        SetElement(expected.view(), a, MultiplyAdd(-y, sin.at(at), x * cos.at(at)));
        SetElement(expected.view(), b, MultiplyAdd(x, sin.at(at), y * cos.at(at)));
      }
      const OwnedTensor rotated = CopyOf(before.view(), DType::kF32);
      Rope(With(1), {.rows = rotated.view(), .heads = kHeads}, pairs,
           {.cos = cos.view(), .sin = sin.view()});
      ASSERT_TRUE(SameBits(rotated.view(), expected.view())) << half << " " << is_split;
    }
  }
}

// Elements (i, i + half) of one order are elements (2 i, 2 i + 1) of the other.
TEST_P(OpsConformance, InterleavedPairsAreHalfSplitPairsInAnotherOrder) {
  constexpr int64_t kHalf = 20;
  const OwnedTensor cos = RandomTensor(DType::kF32, {kBatch, kHalf}, 1);
  const OwnedTensor sin = RandomTensor(DType::kF32, {kBatch, kHalf}, 2);
  const RopeRows rope = {.cos = cos.view(), .sin = sin.view()};
  const OwnedTensor split = RandomTensor(DType::kF32, {kBatch, 2 * kHalf}, 3);
  const OwnedTensor pairs(DType::kF32, {kBatch, 2 * kHalf});
  const auto place = [](int64_t i) {
    const int64_t in_head = i % (2 * kHalf);
    return i - in_head + 2 * (in_head % kHalf) + in_head / kHalf;
  };
  for (int64_t i = 0; i < split.size(); ++i) SetElement(pairs.view(), place(i), split.at(i));
  Rope(With(1), {.rows = split.view()}, RopePairs::kHalfSplit, rope);
  Rope(With(1), {.rows = pairs.view()}, RopePairs::kInterleaved, rope);
  for (int64_t i = 0; i < split.size(); ++i) ASSERT_EQ(pairs.at(place(i)), split.at(i)) << i;
}

// A tensor of these, where the kernel set reads them.
OwnedTensor Values(std::initializer_list<float> values) {
  OwnedTensor tensor(DType::kF32, {static_cast<int64_t>(values.size())});
  std::ranges::copy(values, tensor.view().data<float>());
  return tensor;
}

std::span<const float> SpanOf(const OwnedTensor& tensor) {
  return {tensor.view().data<float>(), static_cast<size_t>(tensor.size())};
}

struct Routed {
  OwnedTensor ids;
  OwnedTensor weights;
};

Routed RouteAll(const Exec& exec, const TensorView& logits, const RouterOptions& options) {
  Routed routed{OwnedTensor(DType::kI32, {logits.dim(0), options.top_k}),
                OwnedTensor(DType::kF32, {logits.dim(0), options.top_k})};
  Route(exec, logits, options, routed.ids.view(), routed.weights.view());
  return routed;
}

TEST_P(OpsConformance, RouterAgreesWithTheReferenceAndRowsAreIndependent) {
  for (const int64_t experts : {1, 5, 16, 20, 64, 128, 331}) {
    for (const bool normalize : {true, false}) {
      const RouterOptions options = {.top_k = std::min<int64_t>(5, experts),
                                     .normalize = normalize};
      const OwnedTensor logits = RandomTensor(DType::kF32, {kBatch, experts}, 1, 3.0F);
      const Routed expected = RouteAll(Reference(), logits.view(), options);
      const Routed all = RouteAll(With(3), logits.view(), options);
      ASSERT_TRUE(SameBits(all.ids.view(), expected.ids.view())) << experts;
      ASSERT_TRUE(IsNear(all.weights, expected.weights, kSumTolerance, 0.1F)) << experts;
      const StridedTensor strided(logits, 3);
      const Routed one = RouteAll(With(1), strided.view().Rows(20, 1), options);
      ASSERT_TRUE(SameBits(one.weights.view(), all.weights.view().Rows(20, 1))) << experts;
      ASSERT_TRUE(SameBits(one.ids.view(), all.ids.view().Rows(20, 1))) << experts;
    }
  }
}

std::vector<RouterOptions> OptionsOf(int64_t experts, std::span<const float> bias) {
  const int64_t top_k = std::min<int64_t>(5, experts);
  std::vector<RouterOptions> all = {
      {.top_k = top_k, .score = RouterScore::kSigmoid, .normalize = false},
      {.top_k = 1, .score = RouterScore::kSigmoid, .normalize = false},
      {.top_k = top_k,
       .score = RouterScore::kSigmoid,
       .correction_bias = bias,
       .normalize_epsilon = 1e-20F,
       .scale = 2.5F},
      {.top_k = top_k, .correction_bias = bias, .scale = 16}};
  for (const int64_t groups : {2, 4, 8, 16}) {
    if (experts % groups != 0 || experts / groups * 2 < top_k) continue;
    all.push_back(
        {.top_k = top_k, .num_groups = groups, .top_groups = 2, .normalize = false, .scale = 16});
    all.push_back({.top_k = top_k,
                   .score = RouterScore::kSigmoid,
                   .correction_bias = bias,
                   .num_groups = groups,
                   .top_groups = 2,
                   .group_score = GroupScore::kTwoLargest,
                   .normalize_epsilon = 1e-20F,
                   .scale = 2.827F});
  }
  return all;
}

TEST_P(OpsConformance, RouterOptionsAgreeWithTheReferenceAndRowsAreIndependent) {
  for (const int64_t experts : {1, 5, 16, 20, 64, 128, 331}) {
    const OwnedTensor bias = RandomTensor(DType::kF32, {experts}, 2);
    const OwnedTensor logits = RandomTensor(DType::kF32, {kBatch, experts}, 1, 3.0F);
    for (const RouterOptions& options : OptionsOf(experts, SpanOf(bias))) {
      const Routed expected = RouteAll(Reference(), logits.view(), options);
      const Routed all = RouteAll(With(3), logits.view(), options);
      ASSERT_TRUE(SameBits(all.ids.view(), expected.ids.view())) << experts;
      ASSERT_TRUE(IsNear(all.weights, expected.weights, kSumTolerance, 0.1F)) << experts;
      const Routed one = RouteAll(With(1), logits.view().Rows(20, 1), options);
      ASSERT_TRUE(SameBits(one.weights.view(), all.weights.view().Rows(20, 1))) << experts;
      ASSERT_TRUE(SameBits(one.ids.view(), all.ids.view().Rows(20, 1))) << experts;
    }
  }
}

// Two groups of three are kept of four. By the largest choice those of 9 and 8 win, by the sum of
// the two largest those of 8 + 7 and 6 + 6.
TEST_P(OpsConformance, GroupsAreChosenByTheirLargestOrTheirTwoLargest) {
  const OwnedTensor choices = Values({6, 6, 0, 9, 0, 0, 8, 7, 0, 5, 5, 5});
  OwnedTensor logits(DType::kF32, {1, 12});
  const auto ids_of = [&](GroupScore group_score) {
    const Routed routed = RouteAll(With(1), logits.view(),
                                   {.top_k = 3,
                                    .score = RouterScore::kSigmoid,
                                    .correction_bias = SpanOf(choices),
                                    .num_groups = 4,
                                    .top_groups = 2,
                                    .group_score = group_score,
                                    .normalize = false});
    // Equal logits: the bias chooses and does not weigh.
    for (int64_t i = 0; i < 3; ++i) EXPECT_EQ(routed.weights.at(i), 0.5F);
    const auto* ids = routed.ids.view().data<int32_t>();
    return std::vector<int32_t>(ids, ids + 3);
  };
  EXPECT_EQ(ids_of(GroupScore::kLargest), (std::vector<int32_t>{3, 6, 7}));
  EXPECT_EQ(ids_of(GroupScore::kTwoLargest), (std::vector<int32_t>{6, 7, 0}));
}

// An expert of a group that is not kept stays out even where all choices are negative.
TEST_P(OpsConformance, ExpertsOfOtherGroupsAreNeverChosen) {
  const OwnedTensor bias = Values({-5, -6, -7, -8});
  const OwnedTensor logits(DType::kF32, {1, 4});
  const Routed routed = RouteAll(With(1), logits.view(),
                                 {.top_k = 2,
                                  .score = RouterScore::kSigmoid,
                                  .correction_bias = SpanOf(bias),
                                  .num_groups = 2,
                                  .top_groups = 1});
  const auto* ids = routed.ids.view().data<int32_t>();
  EXPECT_EQ(std::vector<int32_t>(ids, ids + 2), (std::vector<int32_t>{0, 1}));
}

// All sets but the reference, whose exp is another: experts that one of them chooses are those of
// all.
TEST_P(OpsConformance, RouterHasTheBitsOfEveryOtherKernelSet) {
  const auto supported = SupportedKernelSets();
  if (kernels() == KernelSet::kReference || supported.size() < 2)
    GTEST_SKIP() << "there is no other kernel set to compare with";
  const Exec other{.kernels = supported[1], .pool = &pool()};
  for (const int64_t experts : {1, 7, 64, 128, 331, 4096}) {
    const OwnedTensor bias = RandomTensor(DType::kF32, {experts}, 2);
    const OwnedTensor logits = RandomTensor(DType::kF32, {kBatch, experts}, 1, 20.0F);
    // Equal ones, and terms that are denormal or vanish.
    for (int64_t i = 0; i < logits.size(); i += 3) SetElement(logits.view(), i, 4.0F);
    for (int64_t i = 1; i < logits.size(); i += 5)
      SetElement(logits.view(), i, -80.0F - static_cast<float>(i % 40));
    std::vector<RouterOptions> all = OptionsOf(experts, SpanOf(bias));
    all.push_back({.top_k = std::min<int64_t>(experts, 40)});
    for (const RouterOptions& options : all) {
      const Routed expected = RouteAll(other, logits.view(), options);
      const Routed routed = RouteAll(With(2), logits.view(), options);
      ASSERT_TRUE(SameBits(routed.ids.view(), expected.ids.view())) << experts;
      ASSERT_TRUE(SameBits(routed.weights.view(), expected.weights.view())) << experts;
    }
  }
}

TEST_P(OpsConformance, ASaturatedSigmoidIsChosenByItsLogit) {
  OwnedTensor logits(DType::kF32, {1, 3});
  SetElement(logits.view(), 0, 40.0F);
  SetElement(logits.view(), 2, 50.0F);
  const Routed routed =
      RouteAll(With(1), logits.view(), {.score = RouterScore::kSigmoid, .normalize = false});
  EXPECT_EQ(routed.ids.view().data<int32_t>()[0], 2);
  EXPECT_EQ(routed.weights.at(0), 1.0F);
}

TEST_P(OpsConformance, RouterGivesTiesToTheLowestId) {
  OwnedTensor logits(DType::kF32, {1, 40});
  SetElement(logits.view(), 0, -0.0F);  // 0 is no larger
  SetElement(logits.view(), 13, 1.0F);
  for (const RouterScore score : {RouterScore::kSoftmax, RouterScore::kSigmoid}) {
    const Routed routed = RouteAll(With(1), logits.view(), {.top_k = 4, .score = score});
    const auto* ids = routed.ids.view().data<int32_t>();
    EXPECT_EQ(std::vector<int32_t>(ids, ids + 4), (std::vector<int32_t>{13, 0, 1, 2}));
  }
}

// Five experts of twenty by logits of which some are NaN.
void ExpectDistinctValidIds(const Exec& exec, const TensorView& logits, int64_t nans,
                            RouterScore score, int64_t groups) {
  const Routed routed = RouteAll(exec, logits,
                                 {.top_k = 5,
                                  .score = score,
                                  .num_groups = groups,
                                  .top_groups = groups == 1 ? 1 : 2,
                                  .group_score = GroupScore::kTwoLargest});
  const auto* ids = routed.ids.view().data<int32_t>();
  const std::set<int32_t> distinct(ids, ids + 5);
  EXPECT_EQ(distinct.size(), 5U) << nans;
  EXPECT_GE(*distinct.begin(), 0);
  EXPECT_LT(*distinct.rbegin(), 20);
  // One NaN spoils a softmax; with sigmoid only who is chosen though NaN.
  if (score == RouterScore::kSoftmax || nans == 20) {
    EXPECT_TRUE(std::isnan(routed.weights.at(0)));
  } else if (groups == 1 && nans == 1) {
    EXPECT_FALSE(std::isnan(routed.weights.at(0)));
  }
}

TEST_P(OpsConformance, RouterGivesDistinctValidIdsEvenOfNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const int64_t nans : {1, 7, 20}) {
    const OwnedTensor logits = RandomTensor(DType::kF32, {1, 20}, 1);
    for (int64_t i = 0; i < nans; ++i) SetElement(logits.view(), i * 3 % 20, nan);
    for (const RouterScore score : {RouterScore::kSoftmax, RouterScore::kSigmoid}) {
      for (const int64_t groups : {1, 4})
        ExpectDistinctValidIds(With(1), logits.view(), nans, score, groups);
    }
  }
}

}  // namespace
}  // namespace wideload::compute
