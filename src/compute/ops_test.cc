// The reference kernels against the formulas in double precision.
#include "compute/ops.h"

#include <gtest/gtest.h>
#include <xmmintrin.h>

#include <algorithm>
#include <cmath>
#include <limits>
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
  // One head of 5, of which 4 rotate by a quarter turn in row 0.
  OwnedTensor x(DType::kF32, {2, 5});
  for (int64_t i = 0; i < 10; ++i) SetElement(x.view(), i, static_cast<float>(i % 5 + 1));
  OwnedTensor cos(DType::kF32, {2, 2});
  OwnedTensor sin(DType::kF32, {2, 2});
  for (int64_t i = 0; i < 2; ++i) SetElement(sin.view(), i, 1.0F);
  for (int64_t i = 2; i < 4; ++i) SetElement(cos.view(), i, 1.0F);
  Rope(exec, {.rows = x.view()}, RopePairs::kHalfSplit, {.cos = cos.view(), .sin = sin.view()});
  const std::vector<float> expected = {-3, -4, 1, 2, 5, 1, 2, 3, 4, 5};
  for (int64_t i = 0; i < 10; ++i) EXPECT_EQ(x.at(i), expected[static_cast<size_t>(i)]) << i;
}

struct AttentionCase {
  AttentionShape shape;
  bool values_in_keys = false;
};

// Of query head h at position t: softmax over the keys it sees and its sink, in double.
std::vector<double> AttendInDouble(const AttentionCase& c, const OwnedTensor& q,
                                   const OwnedTensor& k, const OwnedTensor& v, int64_t t,
                                   int64_t h) {
  const AttentionShape& shape = c.shape;
  const int64_t kv = h / (shape.q_heads / shape.kv_heads);
  const auto width = static_cast<size_t>(shape.value_dim);
  double total = shape.sinks.empty() ? 0 : std::exp(shape.sinks[static_cast<size_t>(h)]);
  std::vector<double> sums(width);
  for (int64_t p = 0; p <= t; ++p) {
    if (shape.window > 0 && t - p >= shape.window) continue;
    if (shape.chunk > 0 && p / shape.chunk != t / shape.chunk) continue;
    double dot = 0;
    for (int64_t d = 0; d < shape.key_dim; ++d) {
      dot += double{q.at((t * shape.q_heads + h) * shape.key_dim + d)} *
             k.at((p * shape.kv_heads + kv) * shape.key_dim + d);
    }
    const double weight = std::exp(double{shape.scale} * dot);
    total += weight;
    for (size_t d = 0; d < width; ++d) {
      const auto at = static_cast<int64_t>(d);
      const float value = c.values_in_keys ? k.at((p * shape.kv_heads + kv) * shape.key_dim + at)
                                           : v.at((p * shape.kv_heads + kv) * shape.value_dim + at);
      sums[d] += weight * value;
    }
  }
  for (double& sum : sums) sum /= total;
  return sums;
}

TEST_F(ReferenceOps, PagedAttentionIsSoftmaxOverTheKeysAPositionSees) {
  const float sinks[] = {0.5F, -3, 2, 1};
  const AttentionShape plain = {
      .q_heads = 4, .kv_heads = 2, .key_dim = 24, .value_dim = 24, .scale = 0.2F};
  std::vector<AttentionCase> cases(6, {.shape = plain});
  cases[1].shape.window = 3;
  cases[2].shape.chunk = 4;
  cases[3].shape.sinks = sinks;
  cases[4].shape.value_dim = 7;
  cases[5] = {.shape = plain, .values_in_keys = true};
  cases[5].shape.value_dim = 20;
  for (size_t i = 0; i < cases.size(); ++i) {
    const AttentionShape& shape = cases[i].shape;
    constexpr int64_t kTokens = 11;
    const OwnedTensor q = RandomTensor(DType::kF32, {kTokens, 4 * 24}, 1);
    const OwnedTensor k = RandomTensor(DType::kF32, {kTokens, 2 * 24}, 2);
    const OwnedTensor v = RandomTensor(DType::kF32, {kTokens, 2 * shape.value_dim}, 3);
    const OwnedTensor keys(DType::kF32, {5, 2, 3, 24});
    const OwnedTensor values(DType::kF32, {5, 2, 3, shape.value_dim});
    const OwnedTensor y(DType::kF32, {kTokens, 4 * shape.value_dim});
    const std::vector<int32_t> blocks = {3, 0, 2, 4};
    const std::vector<KvSequence> sequences = {{.num_tokens = kTokens, .blocks = blocks}};
    PagedKv cache = {.keys = keys.view(), .values = values.view()};
    if (cases[i].values_in_keys) cache.values = {};
    StoreKv(exec, k.view(), cases[i].values_in_keys ? TensorView() : v.view(), sequences, cache);
    PagedAttention(exec, shape, q.view(), sequences, cache, y.view());
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t h = 0; h < 4; ++h) {
        const std::vector<double> expected = AttendInDouble(cases[i], q, k, v, t, h);
        for (size_t d = 0; d < expected.size(); ++d) {
          ASSERT_NEAR(y.at((t * 4 + h) * shape.value_dim + static_cast<int64_t>(d)), expected[d],
                      kFp32Tolerance)
              << "case " << i << " position " << t << " head " << h;
        }
      }
    }
  }
}

TEST_F(ReferenceOps, RouteNormalizesTheChosenScoresAndScalesThem) {
  OwnedTensor logits(DType::kF32, {1, 4});
  for (int64_t i = 0; i < 4; ++i) SetElement(logits.view(), i, static_cast<float>(i) - 1);
  const OwnedTensor ids(DType::kI32, {1, 2});
  const OwnedTensor weights(DType::kF32, {1, 2});
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  // The bias lifts expert 0 above expert 2.
  const float bias[] = {0.9F, 0, 0, 0};
  Route(exec, logits.view(),
        {.top_k = 2,
         .score = RouterScore::kSigmoid,
         .correction_bias = bias,
         .normalize_epsilon = 1e-20F,
         .scale = 2.5F},
        ids.view(), weights.view());
  EXPECT_EQ(ids.view().data<int32_t>()[0], 0);
  EXPECT_EQ(ids.view().data<int32_t>()[1], 3);
  const double total = sigmoid(-1) + sigmoid(2);
  EXPECT_NEAR(weights.at(0), 2.5 * sigmoid(-1) / total, 1e-6);
  EXPECT_NEAR(weights.at(1), 2.5 * sigmoid(2) / total, 1e-6);
  // Softmax over the chosen alone is softmax over all, normalised.
  Route(exec, logits.view(), {.top_k = 2}, ids.view(), weights.view());
  EXPECT_NEAR(weights.at(0), std::exp(2.0) / (std::exp(2.0) + std::exp(1.0)), 1e-6);
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
