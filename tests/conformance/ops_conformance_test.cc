// Every kernel set against the reference, and against itself in another batch, at another stride,
// on another number of threads.
#include "ops_conformance.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <set>

namespace wideload::compute {
namespace {

struct GemmSize {
  int64_t n = 0;
  int64_t k = 0;
};
constexpr GemmSize kGemmSizes[] = {{1, 1},   {16, 2},   {17, 24},   {40, 17},  {192, 64},
                                   {48, 33}, {331, 40}, {331, 331}, {64, 600}, {17, 4500}};
constexpr int64_t kBatch = 33;

PackedMatrix PackGateUp(KernelSet kernels, const OwnedTensor& gate, const OwnedTensor& up,
                        ThreadPool& pool) {
  const std::vector<WeightSource> parts = {WeightSource::Plain("gate", gate.view()),
                                           WeightSource::Plain("up", up.view())};
  const PackedShape shape{.kernels = kernels,
                          .format = PlainFormat(kernels),
                          .n = 2 * gate.view().dim(0),
                          .k = gate.view().dim(1),
                          .gate_up = true};
  return PackedMatrix::Pack(shape, parts, pool, Buffer(shape.num_bytes(), TestMemory()));
}

ExpertWeights PackExpert(KernelSet kernels, const OwnedTensor& gate, const OwnedTensor& up,
                         const OwnedTensor& down, ThreadPool& pool) {
  const ExpertShape shape{.kernels = kernels,
                          .format = PlainFormat(kernels),
                          .hidden = gate.view().dim(1),
                          .inner = gate.view().dim(0)};
  return ExpertWeights::Pack(
      shape, WeightSource::Plain("gate", gate.view()), WeightSource::Plain("up", up.view()),
      WeightSource::Plain("down", down.view()), pool, Buffer(shape.num_bytes(), TestMemory()));
}

TEST_P(OpsConformance, MatMulAgreesWithTheReference) {
  for (const auto [n, k] : kGemmSizes) {
    const OwnedTensor w = RandomBf16Values(DType::kBF16, {n, k}, 1);
    const PackedMatrix packed = PackPlain(kernels(), w, pool());
    const PackedMatrix reference = PackPlain(KernelSet::kReference, w, pool());
    for (int64_t m = 1; m <= 40; m += m < 8 ? 1 : 8) {
      const OwnedTensor x = RandomBf16Values(DType::kF32, {m, k}, 2);
      const OwnedTensor expected = RandomTensor(DType::kF32, {m, n}, 3);
      const OwnedTensor actual = CopyOf(expected.view(), DType::kF32);
      MatMul(Reference(), x.view(), reference, expected.view(), /*accumulate=*/m % 2 == 0);
      MatMul(With(2), CopyOf(x.view(), compute_dtype()).view(), packed, actual.view(), m % 2 == 0);
      ASSERT_TRUE(IsNear(actual, expected, kSumTolerance, std::sqrt(static_cast<float>(k))))
          << m << " x " << n << " x " << k;
    }
  }
}

TEST_P(OpsConformance, MatMulInF32KeepsF32WeightsAndRows) {
  const OwnedTensor w = RandomTensor(DType::kF32, {20, 331}, 1);
  const OwnedTensor x = RandomTensor(DType::kF32, {7, 331}, 2);
  const OwnedTensor expected(DType::kF32, {7, 20});
  const OwnedTensor actual(DType::kF32, {7, 20});
  MatMul(Reference(), x.view(), PackPlain(KernelSet::kReference, w, pool()), expected.view());
  MatMul(With(1), x.view(), PackPlain(kernels(), WeightFormat::kF32, w, pool()), actual.view());
  EXPECT_TRUE(IsNear(actual, expected, kSumTolerance, std::sqrt(331.0F)));
}

TEST_P(OpsConformance, ARowOfMatMulHasTheSameBitsAloneInABatchStridedAndOnAnyThreads) {
  for (const auto [n, k] : kGemmSizes) {
    for (const auto format : {PlainFormat(kernels()), WeightFormat::kF32}) {
      const OwnedTensor w = RandomTensor(DType::kF32, {n, k}, 1);
      const PackedMatrix packed = PackPlain(kernels(), format, w, pool());
      const DType dtype = InputDType(kernels(), format);
      const OwnedTensor x = RandomTensor(dtype, {kBatch, k}, 2);
      const OwnedTensor all(DType::kF32, {kBatch, n});
      MatMul(With(1), x.view(), packed, all.view());
      // A thread of an emulated device takes its time.
      for (int64_t count = 1; count <= 14; count += IsOnDevice(kernels()) ? 4 : 1) {
        ASSERT_TRUE(BatchesHaveTheBits(With(1), x.view(), packed, all.view(), {count, count}))
            << "n " << n << " k " << k;
      }
      for (int threads = 1; threads <= 3; ++threads) {
        const StridedTensor x_strided(x, 5);
        const StridedTensor y_strided(OwnedTensor(DType::kF32, {kBatch, n}), 3);
        MatMul(With(threads), x_strided.view(), packed, y_strided.view());
        ASSERT_TRUE(SameBits(y_strided.view(), all.view())) << threads << " threads";
      }
    }
  }
}

// Sets choose among kernels by the number of rows, or by that of the largest group.
TEST_P(OpsConformance, ARowOfMatMulHasTheSameBitsOnBothSidesOfEverySwitch) {
  constexpr int64_t kRows = 200, kN = 150, kK = 72;
  const OwnedTensor gate = RandomTensor(DType::kBF16, {kN, kK}, 1);
  const OwnedTensor up = RandomTensor(DType::kBF16, {kN, kK}, 2);
  const OwnedTensor down = RandomTensor(DType::kBF16, {kK, kN}, 3, 0.1F);
  const ExpertWeights expert = PackExpert(kernels(), gate, up, down, pool());
  const PackedMatrix packed = PackPlain(kernels(), gate, pool());
  const OwnedTensor x = RandomTensor(compute_dtype(), {kRows, kK}, 4);
  const OwnedTensor all(DType::kF32, {kRows, kN});
  const OwnedTensor gated(compute_dtype(), {kRows, kN});
  const OwnedTensor mlp(compute_dtype(), {kRows, kK});
  MatMul(With(1), x.view(), packed, all.view());
  MatMulGated(With(1), x.view(), expert.gate_up(), {}, gated.view());
  MatMul(With(1), gated.view(), expert.down(), mlp.view());
  const StridedTensor strided(x, 3);
  for (const int64_t count : {1, 8, 9, 16, 17, 32, 33, 64, 65, 128, 129}) {
    const OwnedTensor some(DType::kF32, {count, kN});
    MatMul(With(1), strided.view().Rows(kRows - count, count), packed, some.view());
    ASSERT_TRUE(SameBits(some.view(), all.view().Rows(kRows - count, count))) << count;
    const OwnedTensor some_gated(compute_dtype(), {count, kN});
    MatMulGated(With(1), x.view().Rows(kRows - count, count), expert.gate_up(), {},
                some_gated.view());
    ASSERT_TRUE(SameBits(some_gated.view(), gated.view().Rows(kRows - count, count))) << count;
    const OwnedTensor y(compute_dtype(), {kRows, kK});
    const std::vector<const std::byte*> from = RowPointers(x.view());
    const std::vector<std::byte*> to = MutableRowPointers(y.view());
    const auto in = std::span(from);
    const auto out = std::span(to);
    const auto first = static_cast<size_t>(count);
    Workspace workspace(TestMemory());
    ExpertMlp(With(2),
              std::vector<ExpertGroup>{
                  {.weights = &expert, .x_rows = in.first(first), .y_rows = out.first(first)},
                  {.weights = &expert, .x_rows = in.subspan(first), .y_rows = out.subspan(first)}},
              {}, workspace);
    ASSERT_TRUE(SameBits(y.view(), mlp.view())) << count;
  }
}

TEST_P(OpsConformance, MatMulWritesNothingBeyondItsColumns) {
  const OwnedTensor w = RandomTensor(DType::kF32, {17, 40}, 1);
  const OwnedTensor x = RandomTensor(compute_dtype(), {3, 40}, 2);
  const OwnedTensor wide = RandomTensor(DType::kF32, {3, 64}, 3);
  const OwnedTensor before = CopyOf(wide.view(), DType::kF32);
  const TensorView y(DType::kF32, {3, 17}, wide.view().raw(), 64);
  MatMul(With(1), x.view(), PackPlain(kernels(), w, pool()), y);
  for (int64_t i = 0; i < wide.size(); ++i) {
    if (i % 64 < 17) continue;
    ASSERT_EQ(wide.at(i), before.at(i)) << i;
  }
}

TEST_P(OpsConformance, ANanRowStaysAlone) {
  const OwnedTensor w = RandomTensor(DType::kF32, {40, 17}, 1);
  const PackedMatrix packed = PackPlain(kernels(), w, pool());
  const OwnedTensor x = RandomTensor(compute_dtype(), {8, 17}, 2);
  const OwnedTensor clean(DType::kF32, {8, 40});
  MatMul(With(1), x.view(), packed, clean.view());
  for (int64_t i = 0; i < 17; ++i) {
    SetElement(x.view(), int64_t{3} * 17 + i, std::numeric_limits<float>::quiet_NaN());
  }
  const OwnedTensor y(DType::kF32, {8, 40});
  MatMul(With(1), x.view(), packed, y.view());
  EXPECT_TRUE(SameBits(y.view().Rows(0, 3), clean.view().Rows(0, 3)));
  EXPECT_TRUE(SameBits(y.view().Rows(4, 4), clean.view().Rows(4, 4)));
  for (int64_t i = 0; i < 40; ++i) EXPECT_TRUE(std::isnan(y.at(int64_t{3} * 40 + i)));
}

// Behind the end of a row lies the next one.
TEST_P(OpsConformance, ANanRowStaysAloneAmongManyRows) {
  constexpr int64_t kRows = 200, kN = 40, kK = 72, kNanRow = 3;
  const OwnedTensor w = RandomTensor(DType::kF32, {kN, kK}, 1);
  const PackedMatrix packed = PackPlain(kernels(), w, pool());
  const OwnedTensor x = RandomTensor(compute_dtype(), {kRows, kK}, 2);
  const OwnedTensor clean(DType::kF32, {kRows, kN});
  MatMul(With(1), x.view(), packed, clean.view());
  for (int64_t i = 0; i < kK; ++i) {
    SetElement(x.view(), kNanRow * kK + i, std::numeric_limits<float>::quiet_NaN());
  }
  for (const int64_t rows : {40, 100, 200}) {
    const OwnedTensor y(DType::kF32, {rows, kN});
    MatMul(With(1), x.view().Rows(0, rows), packed, y.view());
    EXPECT_TRUE(SameBits(y.view().Rows(0, kNanRow), clean.view().Rows(0, kNanRow))) << rows;
    const int64_t behind = rows - kNanRow - 1;
    EXPECT_TRUE(
        SameBits(y.view().Rows(kNanRow + 1, behind), clean.view().Rows(kNanRow + 1, behind)));
    for (int64_t i = 0; i < kN; ++i) EXPECT_TRUE(std::isnan(y.at(kNanRow * kN + i)));
  }
}

TEST_P(OpsConformance, SwiGluAgreesWithTheReferenceAndRowsAreIndependent) {
  for (const auto [n, k] : kGemmSizes) {
    const float spread = 1.0F / std::sqrt(static_cast<float>(k));
    const OwnedTensor gate = RandomBf16Values(DType::kBF16, {n, k}, 1, spread);
    const OwnedTensor up = RandomBf16Values(DType::kBF16, {n, k}, 2, spread);
    const OwnedTensor x = RandomBf16Values(DType::kF32, {kBatch, k}, 3, 3.0F);
    const OwnedTensor expected(DType::kF32, {kBatch, n});
    MatMulGated(Reference(), x.view(), PackGateUp(KernelSet::kReference, gate, up, pool()), {},
                expected.view());
    const PackedMatrix packed = PackGateUp(kernels(), gate, up, pool());
    const OwnedTensor input = CopyOf(x.view(), compute_dtype());
    const OwnedTensor all(compute_dtype(), {kBatch, n});
    MatMulGated(With(3), input.view(), packed, {}, all.view());
    ASSERT_TRUE(IsNear(all, expected, output_tolerance(), 0.1F)) << n << " x " << k;
    for (int64_t count = 1; count <= 7; ++count) {
      const OwnedTensor some(compute_dtype(), {count, n});
      MatMulGated(With(1), input.view().Rows(9, count), packed, {}, some.view());
      ASSERT_TRUE(SameBits(some.view(), all.view().Rows(9, count))) << n << " x " << k;
    }
  }
}

// silu(x) * x over the whole range, from 1 x 1 weights of 1. Where exp(-x) overflows fp32, below
// -88.7, the value is smaller than 3e-35 and comes out as 0.
constexpr double kOverflow = 3e-35;

TEST_P(OpsConformance, SiluHoldsFromOverflowToUnderflowOfTheExponential) {
  OwnedTensor one(DType::kF32, {1, 1});
  SetElement(one.view(), 0, 1.0F);
  const PackedMatrix packed = PackGateUp(kernels(), one, one, pool());
  constexpr int64_t kPoints = 2001;
  OwnedTensor x(compute_dtype(), {kPoints, 1});
  for (int64_t i = 0; i < kPoints; ++i) {
    SetElement(x.view(), i, static_cast<float>(i - 1000) / 8.0F);
  }
  const OwnedTensor y(compute_dtype(), {kPoints, 1});
  MatMulGated(With(1), x.view(), packed, {}, y.view());
  for (int64_t i = 0; i < kPoints; ++i) {
    const double v = x.at(i);
    const double expected = v * v / (1 + std::exp(-v));
    ASSERT_NEAR(y.at(i), expected, output_tolerance() * std::abs(expected) + kOverflow) << v;
  }
}

struct ExpertSize {
  int64_t hidden = 0;
  int64_t inner = 0;
};

// The two products of an expert one by one.
void RunProducts(const Exec& exec, const ExpertWeights& expert, const TensorView& x,
                 const TensorView& y) {
  const OwnedTensor act(exec.precision().activations, {x.dim(0), expert.shape().inner});
  const OwnedTensor sums(DType::kF32, y.shape());
  MatMulGated(exec, x, expert.gate_up(), {}, act.view());
  MatMul(exec, act.view(), expert.down(), sums.view());
  Convert(exec, sums.view(), y);
}

TEST_P(OpsConformance, ExpertMlpHasTheBitsOfItsTwoProducts) {
  for (const auto [hidden, inner] : {ExpertSize{40, 24}, ExpertSize{192, 64}, ExpertSize{33, 17}}) {
    const std::vector<int64_t> group_rows = {1, 0, 7, 100, 0, 33, 2};
    std::vector<ExpertWeights> experts;
    for (uint32_t e = 0; e < 3; ++e) {
      const OwnedTensor gate = RandomTensor(DType::kF32, {inner, hidden}, 10 + e, 0.2F);
      const OwnedTensor up = RandomTensor(DType::kF32, {inner, hidden}, 20 + e, 0.2F);
      const OwnedTensor down = RandomTensor(DType::kF32, {hidden, inner}, 30 + e, 0.2F);
      experts.push_back(PackExpert(kernels(), gate, up, down, pool()));
    }
    const int64_t total = 143;
    const OwnedTensor x = RandomTensor(compute_dtype(), {total, hidden}, 1);
    const OwnedTensor expected(compute_dtype(), {total, hidden});
    const std::vector<const std::byte*> from = RowPointers(x.view());

    for (int threads = 1; threads <= 3; ++threads) {
      const OwnedTensor y(compute_dtype(), {total, hidden});
      const std::vector<std::byte*> to = MutableRowPointers(y.view());
      std::vector<ExpertGroup> groups;
      size_t first = 0;
      for (size_t g = 0; g < group_rows.size(); ++g) {
        const ExpertWeights& expert = experts[g % experts.size()];
        const auto count = static_cast<size_t>(group_rows[g]);
        groups.push_back({.weights = &expert,
                          .x_rows = std::span(from).subspan(first, count),
                          .y_rows = std::span(to).subspan(first, count)});
        const auto rows = static_cast<int64_t>(count);
        const auto at = static_cast<int64_t>(first);
        if (count > 0)
          RunProducts(With(1), expert, x.view().Rows(at, rows), expected.view().Rows(at, rows));
        first += count;
      }
      Workspace workspace(TestMemory());
      ExpertMlp(With(threads), groups, {}, workspace);
      ASSERT_TRUE(SameBits(y.view(), expected.view())) << hidden << " " << inner;
    }
  }
}

TEST_P(OpsConformance, ExpertMlpAllocatesNothingOnceItHasSeenItsLargestBatch) {
  const OwnedTensor gate = RandomTensor(DType::kF32, {24, 40}, 1);
  const OwnedTensor down = RandomTensor(DType::kF32, {40, 24}, 2);
  const ExpertWeights expert = PackExpert(kernels(), gate, gate, down, pool());
  const OwnedTensor x = RandomTensor(compute_dtype(), {9, 40}, 3);
  const OwnedTensor y(compute_dtype(), {9, 40});
  const auto from = RowPointers(x.view());
  const auto to = MutableRowPointers(y.view());
  const std::vector<ExpertGroup> groups = {{.weights = &expert, .x_rows = from, .y_rows = to}};
  Workspace workspace(TestMemory());
  ExpertMlp(With(2), groups, {}, workspace);
  workspace.Reset();
  const int64_t allocations = workspace.num_allocations();
  for (int i = 0; i < 3; ++i) {
    ExpertMlp(With(2), groups, {}, workspace);
    workspace.Reset();
  }
  EXPECT_EQ(workspace.num_allocations(), allocations);
}

TEST_P(OpsConformance, ACopyOfAnExpertsBytesIsThatExpert) {
  const OwnedTensor gate = RandomTensor(DType::kF32, {17, 40}, 1);
  const OwnedTensor up = RandomTensor(DType::kF32, {17, 40}, 2);
  const OwnedTensor down = RandomTensor(DType::kF32, {40, 17}, 3);
  const ExpertWeights expert = PackExpert(kernels(), gate, up, down, pool());
  Buffer block(expert.shape().num_bytes(), TestMemory());
  std::memcpy(block.data(), expert.bytes().data(), expert.bytes().size());
  const ExpertWeights slot = ExpertWeights::Over(expert.shape(), std::move(block));
  const OwnedTensor x = RandomTensor(compute_dtype(), {3, 40}, 4);
  const auto from = RowPointers(x.view());
  const auto run = [&](const ExpertWeights& weights) {
    OwnedTensor y(compute_dtype(), {3, 40});
    const auto to = MutableRowPointers(y.view());
    const std::vector<ExpertGroup> groups = {{.weights = &weights, .x_rows = from, .y_rows = to}};
    Workspace workspace(TestMemory());
    ExpertMlp(With(1), groups, {}, workspace);
    return y;
  };
  EXPECT_TRUE(SameBits(run(slot).view(), run(expert).view()));
}

TEST_P(OpsConformance, PackingTakesTheSameValuesFromEveryDtypeAndAnySplitIntoParts) {
  const OwnedTensor bf16 = RandomTensor(DType::kBF16, {40, 33}, 1);
  const OwnedTensor f32 = CopyOf(bf16.view(), DType::kF32);
  const PackedMatrix whole = PackPlain(kernels(), bf16, pool());
  const std::vector<WeightSource> parts = {WeightSource::Plain("a", f32.view().Rows(0, 5)),
                                           WeightSource::Plain("b", bf16.view().Rows(5, 20)),
                                           WeightSource::Plain("c", f32.view().Rows(25, 15))};
  const PackedMatrix joined = PackedMatrix::Pack(whole.shape(), parts, *With(3).pool);
  ASSERT_EQ(whole.num_bytes(), joined.num_bytes());
  EXPECT_EQ(std::memcmp(whole.data(), joined.data(), static_cast<size_t>(whole.num_bytes())), 0);
}

TEST_P(OpsConformance, NormsAgreeWithTheReferenceAndRowsAreIndependent) {
  for (const int64_t width : {1, 15, 16, 17, 40, 64, 79, 331}) {
    const OwnedTensor x = RandomTensor(DType::kF32, {kBatch, width}, 1, 3.0F);
    const OwnedTensor weight = RandomTensor(DType::kF32, {width}, 2);
    const OwnedTensor expected(DType::kF32, {kBatch, width});
    RmsNorm(Reference(), x.view(), weight.view(), 1e-6F, expected.view());
    for (const DType dtype : {DType::kF32, compute_dtype()}) {
      const OwnedTensor all(dtype, {kBatch, width});
      RmsNorm(With(3), x.view(), weight.view(), 1e-6F, all.view());
      const float tolerance = dtype == DType::kF32 ? kSumTolerance : kBf16Tolerance;
      ASSERT_TRUE(IsNear(all, expected, tolerance)) << width;
      const StridedTensor strided(x, 3);
      const OwnedTensor one(dtype, {1, width});
      RmsNorm(With(1), strided.view().Rows(20, 1), weight.view(), 1e-6F, one.view());
      ASSERT_TRUE(SameBits(one.view(), all.view().Rows(20, 1))) << width;
    }
    // Each head of a row is the row of a plain norm.
    const OwnedTensor heads = CopyOf(x.view(), DType::kF32);
    const TensorView rows(DType::kF32, {11, 3 * width}, heads.view().raw());
    RmsNormHeads(With(1), {.rows = rows, .heads = 3}, weight.view(), 1e-6F);
    const OwnedTensor plain(DType::kF32, {kBatch, width});
    RmsNorm(With(1), x.view(), weight.view(), 1e-6F, plain.view());
    ASSERT_TRUE(SameBits(heads.view(), plain.view())) << width;
  }
}

TEST_P(OpsConformance, ANormWithoutAWeightIsThatOfOnesAndMayBeInPlace) {
  const OwnedTensor x = RandomTensor(DType::kF32, {kBatch, 40}, 1, 3.0F);
  OwnedTensor ones(DType::kF32, {40});
  for (int64_t i = 0; i < 40; ++i) SetElement(ones.view(), i, 1.0F);
  const OwnedTensor expected(DType::kF32, {kBatch, 40});
  RmsNorm(With(1), x.view(), ones.view(), 1e-5F, expected.view());
  // A part of each of five heads of 8: heads of three columns from 5 on.
  const OwnedTensor heads = CopyOf(x.view(), DType::kF32);
  const OwnedTensor part = CopyOf(x.view(), DType::kF32);
  RmsNorm(With(1), x.view(), {}, 1e-5F, x.view());
  EXPECT_TRUE(SameBits(x.view(), expected.view()));
  RmsNormHeads(With(2), {.rows = part.view(), .heads = 5, .first = 5, .width = 3}, {}, 1e-5F);
  for (int64_t i = 0; i < part.size(); ++i) {
    if (i % 8 < 5) {
      ASSERT_EQ(part.at(i), heads.at(i)) << i;
      continue;
    }
    const int64_t first = i - i % 8 + 5;
    double squares = 0;
    for (int64_t j = first; j < first + 3; ++j) squares += double{heads.at(j)} * heads.at(j);
    const double normed = heads.at(i) / std::sqrt(squares / 3 + 1e-5);
    ASSERT_NEAR(part.at(i), normed, kSumTolerance) << i;
  }
}

TEST_P(OpsConformance, ScalesOfRowsMultiplyBeforeTheRounding) {
  for (const int64_t width : {1, 16, 40}) {
    const OwnedTensor x = RandomTensor(DType::kF32, {5, width}, 1);
    const OwnedTensor factors(DType::kF32, {5});
    const std::span<float> scales(factors.view().data<float>(), 5);
    std::ranges::copy(std::initializer_list<float>{1, 0.3F, -2, 0, 1e-3F}, scales.begin());
    OwnedTensor scaled(DType::kF32, {5, width});
    for (int64_t i = 0; i < x.size(); ++i) {
      SetElement(scaled.view(), i, x.at(i) * scales[static_cast<size_t>(i / width)]);
    }
    for (const DType dtype : {DType::kF32, compute_dtype()}) {
      const OwnedTensor y(dtype, {5, width});
      ConvertScaled(With(2), x.view(), scales, y.view());
      EXPECT_TRUE(SameBits(y.view(), CopyOf(scaled.view(), dtype).view())) << width;
    }
    ConvertScaled(With(1), x.view(), scales, x.view());
    EXPECT_TRUE(SameBits(x.view(), scaled.view())) << width;
  }
}

TEST_P(OpsConformance, PartsOfHeadsAreCopiedToTheirPlace) {
  const OwnedTensor x = RandomTensor(DType::kF32, {3, 40}, 1);
  for (const DType dtype : {DType::kF32, compute_dtype()}) {
    const OwnedTensor y(dtype, {3, 60});
    ConvertHeads(With(2), {.rows = x.view(), .heads = 2, .first = 3, .width = 17},
                 {.rows = y.view(), .heads = 2, .first = 12, .width = 17});
    const OwnedTensor rounded = CopyOf(x.view(), dtype);
    for (int64_t i = 0; i < y.size(); ++i) {
      const int64_t in_head = i % 30 - 12;
      const bool copied = in_head >= 0 && in_head < 17;
      ASSERT_EQ(y.at(i), copied ? rounded.at(i / 30 * 20 + 3 + in_head) : 0.0F) << i;
    }
  }
}

TEST_P(OpsConformance, ConvertRoundsToNearestEvenAndKeepsNan) {
  const std::vector<float> special = {0.0F,
                                      -0.0F,
                                      1.00390625F,  // halfway, down to even
                                      1.01171875F,  // halfway, up to even
                                      1e-40F,
                                      3.4e38F,
                                      std::numeric_limits<float>::infinity(),
                                      std::numeric_limits<float>::quiet_NaN(),
                                      std::bit_cast<float>(0x7f800001U)};
  for (const int64_t width : {1, 9, 16, 25, 40}) {
    OwnedTensor x = RandomTensor(DType::kF32, {2, width}, 1);
    for (int64_t i = 0; i < x.size(); ++i) {
      if (i % 3 != 0) SetElement(x.view(), i, special[static_cast<size_t>(i) % special.size()]);
    }
    const OwnedTensor y(compute_dtype(), {2, width});
    Convert(With(1), x.view(), y.view());
    EXPECT_TRUE(SameBits(y.view(), CopyOf(x.view(), compute_dtype()).view())) << width;
  }
}

TEST_P(OpsConformance, CombineAgreesWithTheReferenceAndSkipsMissingRows) {
  for (const int64_t width : {1, 16, 40, 331}) {
    const OwnedTensor rows = RandomBf16Values(DType::kF32, {15, width}, 1);
    const OwnedTensor mine = CopyOf(rows.view(), compute_dtype());
    const OwnedTensor weights = RandomTensor(DType::kF32, {3, 5}, 2);
    const OwnedTensor expected = RandomTensor(DType::kF32, {3, width}, 3);
    const OwnedTensor y = CopyOf(expected.view(), DType::kF32);
    std::vector<const std::byte*> reference_rows = RowPointers(rows.view());
    std::vector<const std::byte*> my_rows = RowPointers(mine.view());
    reference_rows[6] = my_rows[6] = nullptr;
    CombineRows(Reference(), reference_rows, weights.view(), expected.view());
    CombineRows(With(2), my_rows, weights.view(), y.view());
    ASSERT_TRUE(IsNear(y, expected, kSumTolerance)) << width;
  }
}

TEST_P(OpsConformance, EmbedLooksUpRowsOfEveryDtype) {
  const OwnedTensor table = RandomTensor(DType::kBF16, {20, 33}, 1);
  const OwnedTensor wide = CopyOf(table.view(), DType::kF32);
  const std::vector<int32_t> ids = {19, 0, 7};
  const OwnedTensor y(DType::kF32, {3, 33});
  const OwnedTensor z(DType::kF32, {3, 33});
  Embed(With(1), table.view(), ids, y.view());
  Embed(With(1), wide.view(), ids, z.view());
  EXPECT_TRUE(SameBits(y.view(), z.view()));
  EXPECT_TRUE(SameBits(y.view().Rows(2, 1), wide.view().Rows(7, 1)));
}

// None where the machine cannot run those of this program.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(OpsConformance);
INSTANTIATE_TEST_SUITE_P(Kernels, OpsConformance, testing::ValuesIn(KernelSetsUnderTest()),
                         KernelSetOf);

}  // namespace
}  // namespace wideload::compute
