// Matrix products with weights of every format, biases and activations, on every kernel set:
// against sums in double of the values that the stored bytes mean, and against themselves in other
// batches, strides and threads.
#include <cmath>
#include <limits>

#include "ops_conformance.h"
#include "scaled_weights.h"

namespace wideload::compute {
namespace {

constexpr WeightFormat kScaledFormats[] = {WeightFormat::kFp8, WeightFormat::kInt4,
                                           WeightFormat::kMxfp4};
constexpr int64_t kBatch = 33;

struct Size {
  int64_t n = 0;
  int64_t k = 0;
};

std::vector<Size> SizesOf(WeightFormat format) {
  if (format == WeightFormat::kFp8) {
    return {{1, 1},     {16, 2},   {17, 40},   {40, 127},  {129, 128},
            {331, 129}, {64, 331}, {200, 256}, {17, 4500}, {33, 600}};
  }
  return {{1, 32}, {16, 64}, {17, 96}, {129, 128}, {331, 160}, {40, 2880}, {33, 4512}};
}

// Relative to the sum of the sizes of all products: fp32 sums in some order.
constexpr double kFp32Sums = 2e-6;
struct Expected {
  double sum = 0;
  double size = 0;  // sum of the absolute products
};

Expected Dot(const OwnedTensor& x, int64_t row, const WeightSource& w, int64_t column) {
  Expected expected;
  for (int64_t j = 0; j < w.k(); ++j) {
    const double product = double{x.at(row * w.k() + j)} * w.At(column, j);
    expected.sum += product;
    expected.size += std::abs(product);
  }
  return expected;
}

// Each seventh element of a larger y = x W^T.
void ExpectProducts(const OwnedTensor& x, const WeightSource& w, const OwnedTensor& y) {
  const int64_t n = w.n();
  for (int64_t i = 0; i<y.size(); i += y.size()> 500 ? 7 : 1) {
    const Expected expected = Dot(x, i / n, w, i % n);
    ASSERT_NEAR(y.at(i), expected.sum, kFp32Sums * expected.size)
        << WeightFormatName(w.format()) << " " << y.size() / n << " x " << n << " x " << w.k();
  }
}

TEST_P(OpsConformance, ScaledProductsAreThoseOfTheValuesTheBytesMean) {
  for (const WeightFormat format : kScaledFormats) {
    for (const auto [n, k] : SizesOf(format)) {
      const StoredWeight w = RandomWeight(format, n, k, 1);
      const PackedMatrix packed = PackStored(kernels(), format, w.source, pool());
      ASSERT_EQ(packed.num_bytes(), packed.shape().num_bytes());
      for (const int64_t m : {1, 2, 3, 7, 18}) {
        const OwnedTensor x = RandomTensor(compute_dtype(), {m, k}, 2);
        const OwnedTensor y(DType::kF32, {m, n});
        MatMul(With(2), x.view(), packed, y.view());
        ExpectProducts(x, w.source, y);
      }
    }
  }
}

// With one k and x = 1 a product is the value itself.
TEST_P(OpsConformance, EveryFp8CodeIsExact) {
  OwnedTensor codes(DType::kF8E4M3, {256, 1});
  for (int64_t i = 0; i < 256; ++i) {
    codes.view().data<uint8_t>()[i] = static_cast<uint8_t>(i % 128 == 127 ? 0 : i);
  }
  OwnedTensor scales(DType::kBF16, {2, 1});
  SetElement(scales.view(), 0, 1.0F);
  SetElement(scales.view(), 1, 0.375F);
  const WeightSource source = WeightSource::Fp8("w", codes.view(), scales.view());
  const PackedMatrix packed = PackStored(kernels(), WeightFormat::kFp8, source, pool());
  OwnedTensor x(compute_dtype(), {1, 1});
  SetElement(x.view(), 0, 1.0F);
  const OwnedTensor y(DType::kF32, {1, 256});
  MatMul(With(1), x.view(), packed, y.view());
  for (int64_t i = 0; i < 256; ++i) {
    ASSERT_EQ(y.at(i), codes.at(i) * (i < 128 ? 1.0F : 0.375F)) << i;
  }
}

// Rows of the identity pick single values.
TEST_P(OpsConformance, AValueIsItsCodeTimesItsScaleWhereverItStands) {
  constexpr int64_t kK = 160;
  OwnedTensor identity(compute_dtype(), {kK, kK});
  for (int64_t j = 0; j < kK; ++j) SetElement(identity.view(), j * kK + j, 1.0F);
  for (const WeightFormat format : kScaledFormats) {
    const StoredWeight w = RandomWeight(format, 37, kK, 1);
    const PackedMatrix packed = PackStored(kernels(), format, w.source, pool());
    const OwnedTensor y(DType::kF32, {kK, 37});
    MatMul(With(1), identity.view(), packed, y.view());
    for (int64_t i = 0; i < 37; ++i) {
      for (int64_t j = 0; j < kK; ++j) {
        ASSERT_EQ(y.at(j * 37 + i), w.source.At(i, j))
            << WeightFormatName(format) << " " << i << " " << j;
      }
    }
  }
}

// Rows of a product in batches of 1 to 14 of them have the bits of `all`.
void ExpectSameBitsInBatches(const Exec& exec, const OwnedTensor& x, const PackedMatrix& w,
                             const OwnedTensor& all) {
  for (int64_t count = 1; count <= 14; ++count) {
    const OwnedTensor some(DType::kF32, {count, w.n()});
    for (int64_t first = 0; first + count <= x.view().dim(0); first += 2 * count) {
      MatMul(exec, x.view().Rows(first, count), w, some.view());
      ASSERT_TRUE(SameBits(some.view(), all.view().Rows(first, count)))
          << WeightFormatName(w.format()) << " " << count << " rows from " << first << ", n "
          << w.n() << " k " << w.k();
    }
  }
}

TEST_P(OpsConformance, ARowOfAScaledProductHasTheSameBitsAloneInABatchStridedAndOnAnyThreads) {
  for (const WeightFormat format : kScaledFormats) {
    for (const auto [n, k] : SizesOf(format)) {
      const StoredWeight w = RandomWeight(format, n, k, 1);
      const PackedMatrix packed = PackStored(kernels(), format, w.source, pool());
      const OwnedTensor x = RandomTensor(compute_dtype(), {kBatch, k}, 2);
      const OwnedTensor all(DType::kF32, {kBatch, n});
      MatMul(With(1), x.view(), packed, all.view());
      ExpectSameBitsInBatches(With(1), x, packed, all);
      const StridedTensor x_strided(x, 5);
      const StridedTensor y_strided(OwnedTensor(DType::kF32, {kBatch, n}), 3);
      MatMul(With(3), x_strided.view(), packed, y_strided.view());
      ASSERT_TRUE(SameBits(y_strided.view(), all.view())) << WeightFormatName(format);
    }
  }
}

TEST_P(OpsConformance, ARowOfAScaledGatedProductHasTheSameBitsAloneAndInABatch) {
  constexpr int64_t kInner = 56, kK = 288;
  for (const WeightFormat format : kScaledFormats) {
    const StoredWeight gate = RandomWeight(format, kInner, kK, 1);
    const StoredWeight up = RandomWeight(format, kInner, kK, 3);
    const WeightSource parts[] = {gate.source, up.source};
    const PackedMatrix packed = PackedMatrix::Pack(
        {.kernels = kernels(), .format = format, .n = 2 * kInner, .k = kK, .gate_up = true}, parts,
        pool());
    const OwnedTensor x = RandomTensor(compute_dtype(), {kBatch, kK}, 2, 0.1F);
    const OwnedTensor all(compute_dtype(), {kBatch, kInner});
    MatMulGated(With(2), x.view(), packed, {}, all.view());
    for (int64_t count = 1; count <= 14; ++count) {
      const OwnedTensor some(compute_dtype(), {count, kInner});
      for (int64_t first = 0; first + count <= kBatch; first += 2 * count) {
        MatMulGated(With(1), x.view().Rows(first, count), packed, {}, some.view());
        ASSERT_TRUE(SameBits(some.view(), all.view().Rows(first, count)))
            << WeightFormatName(format) << " " << count << " rows from " << first;
      }
    }
  }
}

// Rows so small and so large that sums come near the ends of fp32's range.
TEST_P(OpsConformance, ARowOfAScaledProductHasTheSameBitsWhateverItsSize) {
  constexpr int64_t kN = 40, kK = 160;
  for (const WeightFormat format : kScaledFormats) {
    const StoredWeight w = RandomWeight(format, kN, kK, 1);
    const PackedMatrix packed = PackStored(kernels(), format, w.source, pool());
    for (const float size : {0x1p-130F, 0x1p-120F, 0x1p-100F, 0x1p100F, 0x1p110F}) {
      const OwnedTensor x = RandomTensor(compute_dtype(), {kBatch, kK}, 2, size);
      const OwnedTensor all(DType::kF32, {kBatch, kN});
      MatMul(With(1), x.view(), packed, all.view());
      for (const int64_t count : {1, 2, 4, 6, 7}) {
        const OwnedTensor some(DType::kF32, {count, kN});
        MatMul(With(1), x.view().Rows(3, count), packed, some.view());
        ASSERT_TRUE(SameBits(some.view(), all.view().Rows(3, count)))
            << WeightFormatName(format) << " " << count << " rows of size " << size;
      }
    }
  }
}

TEST_P(OpsConformance, ANanRowOfAScaledProductStaysAlone) {
  for (const WeightFormat format : kScaledFormats) {
    const StoredWeight w = RandomWeight(format, 40, 64, 1);
    const PackedMatrix packed = PackStored(kernels(), format, w.source, pool());
    const OwnedTensor x = RandomTensor(compute_dtype(), {8, 64}, 2);
    const OwnedTensor clean(DType::kF32, {8, 40});
    MatMul(With(1), x.view(), packed, clean.view());
    SetElement(x.view(), int64_t{3} * 64 + 5, std::numeric_limits<float>::quiet_NaN());
    const OwnedTensor y(DType::kF32, {8, 40});
    MatMul(With(1), x.view(), packed, y.view());
    EXPECT_TRUE(SameBits(y.view().Rows(0, 3), clean.view().Rows(0, 3)));
    EXPECT_TRUE(SameBits(y.view().Rows(4, 4), clean.view().Rows(4, 4)));
    for (int64_t i = 0; i < 40; ++i) EXPECT_TRUE(std::isnan(y.at(int64_t{3} * 40 + i)));
  }
}

TEST_P(OpsConformance, ABiasIsAddedOnceToEverySumInEveryFormat) {
  for (const WeightFormat format : {PlainFormat(kernels()), WeightFormat::kF32, WeightFormat::kFp8,
                                    WeightFormat::kInt4, WeightFormat::kMxfp4}) {
    if (!Multiplies(format)) continue;
    const StoredWeight w = RandomWeight(format, 37, 64, 1);
    const OwnedTensor bias = RandomTensor(DType::kBF16, {37}, 5);
    const PackedMatrix plain = PackStored(kernels(), format, w.source, pool());
    const PackedMatrix biased =
        PackStored(kernels(), format, w.source.WithBias(bias.view()), pool());
    const OwnedTensor x = RandomTensor(InputDType(kernels(), format), {5, 64}, 2);
    const OwnedTensor sums(DType::kF32, {5, 37});
    const OwnedTensor y = RandomTensor(DType::kF32, {5, 37}, 6);
    const OwnedTensor added = CopyOf(y.view(), DType::kF32);
    const OwnedTensor before = CopyOf(y.view(), DType::kF32);
    MatMul(With(1), x.view(), plain, sums.view());
    MatMul(With(1), x.view(), biased, y.view());
    MatMul(With(1), x.view(), biased, added.view(), /*accumulate=*/true);
    for (int64_t i = 0; i < sums.size(); ++i) {
      const float sum = sums.at(i) + bias.at(i % 37);
      ASSERT_EQ(y.at(i), sum) << WeightFormatName(format);
      ASSERT_EQ(added.at(i), before.at(i) + sum) << WeightFormatName(format);
    }
  }
}

TEST_P(OpsConformance, AProductStoredAsActivationsIsTheSumRoundedOnce) {
  const StoredWeight w = RandomWeight(PlainFormat(kernels()), 37, 40, 1);
  const PackedMatrix packed = PackStored(kernels(), PlainFormat(kernels()), w.source, pool());
  const OwnedTensor x = RandomTensor(compute_dtype(), {5, 40}, 2);
  const OwnedTensor sums(DType::kF32, {5, 37});
  const OwnedTensor rounded(compute_dtype(), {5, 37});
  MatMul(With(1), x.view(), packed, sums.view());
  MatMul(With(1), x.view(), packed, rounded.view());
  EXPECT_TRUE(SameBits(rounded.view(), CopyOf(sums.view(), compute_dtype()).view()));
}

struct Expert {
  StoredWeight gate;
  StoredWeight up;
  StoredWeight down;
  OwnedTensor gate_bias;
  OwnedTensor down_bias;
  ExpertWeights weights;
};

Expert RandomExpert(KernelSet kernels, WeightFormat format, bool bias, ThreadPool& pool) {
  constexpr int64_t kHidden = 96, kInner = 64;
  Expert expert{.gate = RandomWeight(format, kInner, kHidden, 1),
                .up = RandomWeight(format, kInner, kHidden, 3),
                .down = RandomWeight(format, kHidden, kInner, 5),
                .gate_bias = RandomTensor(DType::kF32, {kInner}, 7),
                .down_bias = RandomTensor(DType::kF32, {kHidden}, 8),
                .weights = {}};
  const auto with = [&](const WeightSource& source, const OwnedTensor& values) {
    return bias ? source.WithBias(values.view()) : source;
  };
  const ExpertShape shape{
      .kernels = kernels, .format = format, .hidden = kHidden, .inner = kInner, .bias = bias};
  expert.weights = ExpertWeights::Pack(
      shape, with(expert.gate.source, expert.gate_bias), with(expert.up.source, expert.gate_bias),
      with(expert.down.source, expert.down_bias), pool, Buffer(shape.num_bytes(), TestMemory()));
  return expert;
}

TEST_P(OpsConformance, AnExpertOfAnyFormatIsItsProductsActivationAndBiases) {
  const GatedActivation clamped = {.alpha = 1.702F, .limit = 7, .up_offset = 1};
  for (const WeightFormat format :
       {PlainFormat(kernels()), WeightFormat::kFp8, WeightFormat::kInt4, WeightFormat::kMxfp4}) {
    if (!Multiplies(format)) continue;
    for (const bool bias : {false, true}) {
      const Expert expert = RandomExpert(kernels(), format, bias, pool());
      const OwnedTensor x = RandomTensor(compute_dtype(), {9, 96}, 9);
      const OwnedTensor y(compute_dtype(), {9, 96});
      const auto from = RowPointers(x.view());
      const auto to = MutableRowPointers(y.view());
      const std::vector<ExpertGroup> groups = {
          {.weights = &expert.weights, .x_rows = from, .y_rows = to}};
      Workspace workspace(TestMemory());
      ExpertMlp(With(2), groups, clamped, workspace);
      // The same from its parts.
      const OwnedTensor act(compute_dtype(), {9, 64});
      const OwnedTensor rows(compute_dtype(), {9, 96});
      MatMulGated(With(1), x.view(), expert.weights.gate_up(), clamped, act.view());
      MatMul(With(1), act.view(), expert.weights.down(), rows.view());
      ASSERT_TRUE(SameBits(rows.view(), y.view())) << WeightFormatName(format);
      // Gate and up against single products, the activation in double.
      const auto sums_of = [&](const StoredWeight& w) {
        OwnedTensor sums(DType::kF32, {9, 64});
        const WeightSource source = bias ? w.source.WithBias(expert.gate_bias.view()) : w.source;
        MatMul(With(1), x.view(), PackStored(kernels(), format, source, pool()), sums.view());
        return sums;
      };
      const OwnedTensor gate = sums_of(expert.gate);
      const OwnedTensor up = sums_of(expert.up);
      for (int64_t i = 0; i < act.size(); ++i) {
        const double g = std::min<double>(gate.at(i), 7);
        const double u = std::clamp<double>(up.at(i), -7, 7);
        const double expected = g / (1 + std::exp(-1.702 * g)) * (u + 1);
        ASSERT_NEAR(act.at(i), expected, output_tolerance() * (std::abs(expected) + 0.1))
            << WeightFormatName(format) << " " << g << " " << u;
      }
    }
  }
}

TEST_P(OpsConformance, AClampedActivationKeepsNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  OwnedTensor one(DType::kF32, {1, 1});
  SetElement(one.view(), 0, 1.0F);
  const WeightSource parts[] = {WeightSource::Plain("gate", one.view()),
                                WeightSource::Plain("up", one.view())};
  const PackedShape shape{
      .kernels = kernels(), .format = PlainFormat(kernels()), .n = 2, .k = 1, .gate_up = true};
  const PackedMatrix packed =
      PackedMatrix::Pack(shape, parts, pool(), Buffer(shape.num_bytes(), TestMemory()));
  OwnedTensor x(compute_dtype(), {1, 1});
  SetElement(x.view(), 0, nan);
  const OwnedTensor y(compute_dtype(), {1, 1});
  for (const GatedActivation& activation :
       {GatedActivation{}, GatedActivation{.alpha = 1.702F, .limit = 7, .up_offset = 1}}) {
    MatMulGated(With(1), x.view(), packed, activation, y.view());
    EXPECT_TRUE(std::isnan(y.at(0)));
  }
}

// Columns [first, first + width) of a matrix.
OwnedTensor ColumnsOf(const OwnedTensor& x, int64_t first, int64_t width) {
  const int64_t rows = x.view().dim(0);
  OwnedTensor part(x.view().dtype(), {rows, width});
  for (int64_t i = 0; i < rows * width; ++i)
    SetElement(part.view(), i, x.at(i / width * x.view().dim(1) + first + i % width));
  return part;
}

TEST_P(OpsConformance, HeadsOfMatMulHeadsAreSingleProducts) {
  constexpr int64_t kHeads = 3, kXStride = 40, kFirst = 5, kK = 24, kYStride = 50, kN = 33;
  std::vector<PackedMatrix> matrices;
  for (uint32_t h = 0; h < kHeads; ++h) {
    const StoredWeight w = RandomWeight(WeightFormat::kBF16, kN, kK, h);
    matrices.push_back(PackStored(kernels(), PlainFormat(kernels()), w.source, pool()));
  }
  for (const int64_t rows : {0, 1, 7, 40}) {
    const OwnedTensor x = RandomTensor(compute_dtype(), {rows, kHeads * kXStride}, 1);
    for (const DType dtype : {DType::kF32, compute_dtype()}) {
      const OwnedTensor y(dtype, {rows, kHeads * kYStride});
      MatMulHeads(With(3), {.rows = x.view(), .heads = kHeads, .first = kFirst, .width = kK},
                  matrices, {.rows = y.view(), .heads = kHeads, .first = 2, .width = kN});
      for (int64_t h = 0; h < kHeads; ++h) {
        const OwnedTensor part = ColumnsOf(x, h * kXStride + kFirst, kK);
        const OwnedTensor single(dtype, {rows, kN});
        MatMul(With(1), part.view(), matrices[static_cast<size_t>(h)], single.view());
        // With a column on either side where nothing is written.
        const OwnedTensor written = ColumnsOf(y, h * kYStride + 1, kN + 2);
        EXPECT_TRUE(SameBits(ColumnsOf(written, 1, kN).view(), single.view()));
        const OwnedTensor zeros(dtype, {rows, 1});
        EXPECT_TRUE(SameBits(ColumnsOf(written, 0, 1).view(), zeros.view()));
        EXPECT_TRUE(SameBits(ColumnsOf(written, kN + 1, 1).view(), zeros.view()));
      }
    }
  }
}

}  // namespace
}  // namespace wideload::compute
