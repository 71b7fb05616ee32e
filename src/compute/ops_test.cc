// The reference kernels against the formulas in double precision.
#include "compute/ops.h"

#include <gtest/gtest.h>
#include <xmmintrin.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "compute/testing.h"

namespace wideload::compute {
namespace {

// fp32 sums of at most 331 products of size about 1: rounding errors stay two digits below this.
constexpr double kFp32Tolerance = 1e-4;

struct ReferenceOps : testing::Test {
  ThreadPool pool{"test", 2};
  Exec exec{.kernels = KernelSet::kReference, .pool = &pool};
};

double Dot(const OwnedTensor& x, int64_t x_row, const OwnedTensor& w, int64_t w_row) {
  const int64_t k = x.view().dim(1);
  double sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += double{x.at(x_row * k + i)} * w.at(w_row * k + i);
  return sum;
}

double Silu(double x) { return x / (1 + std::exp(-x)); }

TEST_F(ReferenceOps, MatMulIsTheProductWithTheTransposedWeight) {
  const OwnedTensor x = RandomTensor(DType::kF32, {3, 40}, 1);
  const OwnedTensor q = RandomTensor(DType::kF32, {331, 40}, 2);
  const OwnedTensor k = RandomTensor(DType::kBF16, {17, 40}, 3);
  const std::vector<WeightSource> parts = {WeightSource::Plain("q", q.view()),
                                           WeightSource::Plain("k", k.view())};
  const PackedMatrix w = PackedMatrix::Pack({.n = 348, .k = 40}, parts, pool);
  const OwnedTensor y = RandomTensor(DType::kF32, {3, 348}, 4);
  const float before = y.at(0);
  MatMul(exec, x.view(), w, y.view(), /*accumulate=*/true);
  EXPECT_NEAR(y.at(0), before + Dot(x, 0, q, 0), kFp32Tolerance);
  MatMul(exec, x.view(), w, y.view());
  for (int64_t t = 0; t < 3; ++t) {
    for (int64_t n = 0; n < 331; ++n) ASSERT_NEAR(y.at(t * 348 + n), Dot(x, t, q, n), 1e-4);
    for (int64_t n = 0; n < 17; ++n) ASSERT_NEAR(y.at(t * 348 + 331 + n), Dot(x, t, k, n), 1e-4);
  }
}

TEST_F(ReferenceOps, ExpertMlpIsDownOfSiluGateTimesUp) {
  constexpr int64_t kHidden = 40, kInner = 24;
  const OwnedTensor gate = RandomTensor(DType::kF32, {kInner, kHidden}, 1, 0.2F);
  const OwnedTensor up = RandomTensor(DType::kF32, {kInner, kHidden}, 2, 0.2F);
  const OwnedTensor down = RandomTensor(DType::kF32, {kHidden, kInner}, 3, 0.2F);
  const ExpertWeights expert = ExpertWeights::Pack(
      {.hidden = kHidden, .inner = kInner}, WeightSource::Plain("gate", gate.view()),
      WeightSource::Plain("up", up.view()), WeightSource::Plain("down", down.view()), pool);

  const OwnedTensor x = RandomTensor(DType::kF32, {2, kHidden}, 4);
  const OwnedTensor y(DType::kF32, {2, kHidden});
  // Row 1 goes first, and to the place of row 0.
  const std::vector<const std::byte*> from = {
      reinterpret_cast<const std::byte*>(x.view().row<float>(1))};
  const std::vector<std::byte*> to = {reinterpret_cast<std::byte*>(y.view().row<float>(0))};
  const std::vector<ExpertGroup> groups = {{.weights = &expert, .x_rows = {}, .y_rows = {}},
                                           {.weights = &expert, .x_rows = from, .y_rows = to}};
  Workspace workspace;
  ExpertMlp(exec, groups, {}, workspace);

  std::vector<double> inner(kInner);
  for (size_t i = 0; i < inner.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    inner[i] = Silu(Dot(x, 1, gate, row)) * Dot(x, 1, up, row);
  }
  for (int64_t h = 0; h < kHidden; ++h) {
    double sum = 0;
    for (size_t i = 0; i < inner.size(); ++i) {
      sum += inner[i] * down.at(h * kInner + static_cast<int64_t>(i));
    }
    ASSERT_NEAR(y.at(h), sum, kFp32Tolerance);
    ASSERT_EQ(y.at(kHidden + h), 0.0F);
  }
}

TEST_F(ReferenceOps, RmsNormScalesByTheRootMeanSquare) {
  const OwnedTensor x = RandomTensor(DType::kF32, {2, 48}, 1, 3.0F);
  const OwnedTensor weight = RandomTensor(DType::kF32, {24}, 2);
  const OwnedTensor y(DType::kF32, {2, 48});
  Convert(exec, x.view(), y.view());
  RmsNormHeads(exec, {.rows = y.view(), .heads = 2}, weight.view(), 1e-6F);
  for (int64_t head = 0; head < 4; ++head) {
    double squares = 0;
    for (int64_t i = 0; i < 24; ++i) squares += std::pow(double{x.at(head * 24 + i)}, 2);
    const double scale = 1 / std::sqrt(squares / 24 + 1e-6);
    for (int64_t i = 0; i < 24; ++i) {
      ASSERT_NEAR(y.at(head * 24 + i), x.at(head * 24 + i) * scale * weight.at(i), kFp32Tolerance);
    }
  }
}

TEST_F(ReferenceOps, RopeRotatesPairsHalfTheRotaryDimensionApart) {
  // One head of 5, of which 4 rotate by a quarter turn at position 1.
  OwnedTensor x(DType::kF32, {2, 5});
  for (int64_t i = 0; i < 10; ++i) SetElement(x.view(), i, static_cast<float>(i % 5 + 1));
  OwnedTensor cos(DType::kF32, {2, 2});
  OwnedTensor sin(DType::kF32, {2, 2});
  for (int64_t i = 0; i < 2; ++i) SetElement(cos.view(), i, 1.0F);
  for (int64_t i = 2; i < 4; ++i) SetElement(sin.view(), i, 1.0F);
  Rope(exec, {.rows = x.view()}, RopePairs::kHalfSplit, {.cos = cos.view(), .sin = sin.view()},
       std::vector<int32_t>{1, 0});
  const std::vector<float> expected = {-3, -4, 1, 2, 5, 1, 2, 3, 4, 5};
  for (int64_t i = 0; i < 10; ++i) EXPECT_EQ(x.at(i), expected[static_cast<size_t>(i)]) << i;
}

TEST_F(ReferenceOps, PagedAttentionIsCausalSoftmaxOverTheCache) {
  constexpr int64_t kTokens = 7, kDim = 24, kQHeads = 4, kKvHeads = 2;
  const OwnedTensor q = RandomTensor(DType::kF32, {kTokens, kQHeads * kDim}, 1);
  const OwnedTensor k = RandomTensor(DType::kF32, {kTokens, kKvHeads * kDim}, 2);
  const OwnedTensor v = RandomTensor(DType::kF32, {kTokens, kKvHeads * kDim}, 3);
  const OwnedTensor keys(DType::kF32, {4, kKvHeads, 3, kDim});
  const OwnedTensor values(DType::kF32, {4, kKvHeads, 3, kDim});
  const OwnedTensor y(DType::kF32, {kTokens, kQHeads * kDim});
  const std::vector<int32_t> blocks = {3, 0, 2};
  const std::vector<KvSequence> sequences = {{.num_tokens = kTokens, .blocks = blocks}};
  const PagedKv cache = {.keys = keys.view(), .values = values.view()};
  StoreKv(exec, k.view(), v.view(), sequences, cache);
  const AttentionShape shape = {
      .q_heads = kQHeads, .kv_heads = kKvHeads, .key_dim = kDim, .value_dim = kDim, .scale = 0.2F};
  PagedAttention(exec, shape, q.view(), sequences, cache, y.view());

  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t h = 0; h < kQHeads; ++h) {
      const int64_t q_at = t * kQHeads * kDim + h * kDim;
      std::vector<double> weights;
      for (int64_t p = 0; p <= t; ++p) {
        double dot = 0;
        for (int64_t d = 0; d < kDim; ++d) {
          dot += double{q.at(q_at + d)} * k.at(p * kKvHeads * kDim + h / 2 * kDim + d);
        }
        weights.push_back(std::exp(0.2 * dot));
      }
      const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
      for (int64_t d = 0; d < kDim; ++d) {
        double sum = 0;
        for (int64_t p = 0; p <= t; ++p) {
          sum += weights[static_cast<size_t>(p)] / total *
                 v.at(p * kKvHeads * kDim + h / 2 * kDim + d);
        }
        ASSERT_NEAR(y.at(q_at + d), sum, kFp32Tolerance) << t << " " << h << " " << d;
      }
    }
  }
}

TEST_F(ReferenceOps, CombineAddsWeightedRowsAndSkipsMissingOnes) {
  const OwnedTensor rows = RandomTensor(DType::kF32, {2, 5}, 1);
  OwnedTensor weights(DType::kF32, {1, 3});
  for (int64_t i = 0; i < 3; ++i) SetElement(weights.view(), i, static_cast<float>(i + 1));
  const OwnedTensor y = RandomTensor(DType::kF32, {1, 5}, 2);
  const OwnedTensor before = RandomTensor(DType::kF32, {1, 5}, 2);
  const auto row = [&](int64_t i) {
    return reinterpret_cast<const std::byte*>(rows.view().row<float>(i));
  };
  CombineRows(exec, std::vector<const std::byte*>{row(1), nullptr, row(0)}, weights.view(),
              y.view());
  for (int64_t i = 0; i < 5; ++i) {
    EXPECT_EQ(y.at(i), before.at(i) + (rows.at(5 + i) + 3 * rows.at(i)));
  }
}

TEST(KernelSets, ReferenceIsAlwaysSupportedAndNamesParseBack) {
  ASSERT_FALSE(SupportedKernelSets().empty());
  EXPECT_EQ(SupportedKernelSets()[0], KernelSet::kReference);
  for (const KernelSet kernels : SupportedKernelSets()) {
    EXPECT_EQ(ParseKernelSet(KernelSetName(kernels)), kernels);
  }
  EXPECT_EQ(ParseKernelSet("auto"), AutoKernelSet());
}

TEST(KernelSets, AnUnknownNameIsRefusedWithTheAllowedOnes) {
  try {
    ParseKernelSet("avx1024");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalid);
    EXPECT_NE(std::string(error.what()).find("avx512_bf16"), std::string::npos) << error.what();
  }
}

TEST(KernelSets, AutoIsOneOfTheSupportedOnes) {
  const auto supported = SupportedKernelSets();
  EXPECT_NE(std::find(supported.begin(), supported.end(), AutoKernelSet()), supported.end());
}

TEST(FloatingPointModeDeathTest, FlushToZeroEndsTheProcess) {
  CheckFloatingPointMode();
  EXPECT_DEATH(
      {
        _mm_setcsr(_mm_getcsr() | 0x8000U);
        CheckFloatingPointMode();
      },
      "MXCSR");
}

TEST_F(ReferenceOps, ArgumentsThatDoNotFitEndTheProcessNamingThem) {
  const OwnedTensor w(DType::kF32, {8, 4});
  const PackedMatrix packed = PackPlain(exec.kernels, w, pool);
  const OwnedTensor x(DType::kF32, {2, 5});
  const OwnedTensor y(DType::kF32, {2, 8});
  EXPECT_DEATH(MatMul(exec, x.view(), packed, y.view()), "MatMul: x is F32 .2, 5., expected");
  const OwnedTensor table(DType::kF32, {3, 8});
  EXPECT_DEATH(Embed(exec, table.view(), std::vector<int32_t>{0, 3}, y.view()), "id 3 of 3");
}

}  // namespace
}  // namespace wideload::compute
