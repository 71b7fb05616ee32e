// Packing from every orientation, and what is refused.
#include "compute/matrix.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "compute/testing.h"

namespace wideload::compute {
namespace {

struct Packing : testing::Test {
  ThreadPool pool{"test", 2};

  PackedMatrix Pack(WeightFormat format, const WeightSource& source) {
    return PackedMatrix::Pack({.kernels = KernelSet::kAvx512,
                               .format = format,
                               .n = source.n(),
                               .k = source.k(),
                               .bias = source.has_bias()},
                              {&source, 1}, pool);
  }
  std::string RefusalOf(const std::function<void()>& pack) {
    try {
      pack();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
};

bool SameBytes(const PackedMatrix& a, const PackedMatrix& b) {
  return a.num_bytes() == b.num_bytes() &&
         std::memcmp(a.data(), b.data(), static_cast<size_t>(a.num_bytes())) == 0;
}

OwnedTensor BytesOf(DType dtype, const Shape& shape, uint8_t first, uint8_t step) {
  OwnedTensor tensor(dtype, shape);
  auto* bytes = static_cast<uint8_t*>(tensor.view().raw_mutable());
  for (int64_t i = 0; i < tensor.view().num_bytes(); ++i) {
    bytes[i] = static_cast<uint8_t>(first + step * (i % 97));
  }
  return tensor;
}

TEST_F(Packing, AnInputMajorWeightIsItsTranspose) {
  const OwnedTensor w = RandomTensor(DType::kBF16, {33, 40}, 1);
  OwnedTensor transposed(DType::kBF16, {40, 33});
  for (int64_t i = 0; i < w.size(); ++i) {
    SetElement(transposed.view(), i % 40 * 33 + i / 40, w.at(i));
  }
  const WeightSource source = WeightSource::Plain("w", w.view());
  const WeightSource input_major = WeightSource::Plain("t", transposed.view()).Transposed();
  EXPECT_EQ(input_major.n(), 33);
  EXPECT_TRUE(SameBytes(Pack(WeightFormat::kBF16, source), Pack(WeightFormat::kBF16, input_major)));
  // Half of the output features of an input-major weight: columns of what is stored.
  EXPECT_TRUE(SameBytes(Pack(WeightFormat::kBF16, source.Rows(20, 13)),
                        Pack(WeightFormat::kBF16, input_major.Rows(20, 13))));
  EXPECT_EQ(input_major.Rows(20, 13).Transposed().Rows(3, 2).At(1, 7), w.at(27 * 40 + 4));
}

TEST_F(Packing, EveryOtherRowIsGateOrUpWithItsBias) {
  const OwnedTensor w = RandomTensor(DType::kF32, {20, 8}, 1);
  const OwnedTensor bias = RandomTensor(DType::kF32, {20}, 2);
  const WeightSource both = WeightSource::Plain("gate_up", w.view()).WithBias(bias.view());
  const WeightSource parts[] = {both.Rows(0, 10, 2), both.Rows(1, 10, 2)};
  for (int64_t i = 0; i < 10; ++i) {
    EXPECT_EQ(parts[1].At(i, 3), w.at((2 * i + 1) * 8 + 3));
    EXPECT_EQ(parts[0].Bias(i), bias.at(2 * i));
  }
  const PackedMatrix packed = PackedMatrix::Pack(
      {.format = WeightFormat::kF32, .n = 20, .k = 8, .gate_up = true, .bias = true}, parts, pool);
  EXPECT_EQ(packed.num_bytes(), int64_t{2} * 8 * 16 * 4 + int64_t{2} * 16 * 4);
  EXPECT_EQ(packed.bias()[3], bias.at(6));
  EXPECT_EQ(packed.bias()[16 + 3], bias.at(7));
  EXPECT_EQ(reinterpret_cast<const float*>(packed.data())[8 * 16 + 3], w.at(int64_t{7} * 8));
}

TEST_F(Packing, AScaledWeightBecomesPlainAsItsValues) {
  const OwnedTensor codes = BytesOf(DType::kF8E4M3, {200, 140}, 0, 1);
  const OwnedTensor scales = RandomTensor(DType::kF32, {2, 2}, 1);
  const WeightSource source = WeightSource::Fp8("w", codes.view(), scales.view());
  EXPECT_EQ(source.At(129, 128), codes.at(129 * 140 + 128) * scales.at(3));
  OwnedTensor plain(DType::kF32, {72, 140});
  for (int64_t i = 0; i < plain.size(); ++i) {
    const int64_t row = 128 + i / 140;
    SetElement(plain.view(), i, codes.at(row * 140 + i % 140) * scales.at(2 + i % 140 / 128));
  }
  const WeightSource expected = WeightSource::Plain("p", plain.view());
  EXPECT_TRUE(SameBytes(Pack(WeightFormat::kBF16, source.Rows(128, 72)),
                        Pack(WeightFormat::kBF16, expected)));
  EXPECT_TRUE(SameBytes(Pack(WeightFormat::kBF16, source.Rows(128, 72).Transposed()),
                        Pack(WeightFormat::kBF16, expected.Transposed())));
}

TEST_F(Packing, RowsOfAnyBlocksCarryTheirOwnScales) {
  const OwnedTensor codes = BytesOf(DType::kF8E4M3, {130, 8}, 0x30, 1);
  OwnedTensor scales(DType::kF32, {2, 1});
  SetElement(scales.view(), 0, 2.0F);
  SetElement(scales.view(), 1, 3.0F);
  const WeightSource source = WeightSource::Fp8("w", codes.view(), scales.view());
  const PackedMatrix packed = Pack(WeightFormat::kFp8, source.Rows(126, 4));
  const auto* line = reinterpret_cast<const float*>(packed.data());
  EXPECT_EQ(std::vector<float>(line, line + 5), (std::vector<float>{2, 2, 3, 3, 0}));
}

TEST_F(Packing, BytesAreThoseOfTheValuesAndTheirScales) {
  const auto bytes = [](WeightFormat format, int64_t k) {
    return PackedShape{.format = format, .n = 17, .k = k}.num_bytes() / 2;
  };
  EXPECT_EQ(bytes(WeightFormat::kF32, 33), 33 * 16 * 4);
  EXPECT_EQ(bytes(WeightFormat::kBF16, 33), 64 * 16 * 2);
  EXPECT_EQ(bytes(WeightFormat::kFp8, 256), 2 * 64 + 256 * 16);
  EXPECT_EQ(bytes(WeightFormat::kFp8, 257), 3 * 64 + 288 * 16);
  EXPECT_EQ(bytes(WeightFormat::kInt4, 96), 2 * 64 + 96 * 8);
  EXPECT_EQ(bytes(WeightFormat::kMxfp4, 2880), 23 * 64 + 2880 * 8);
  const ExpertShape expert = {.hidden = 40, .inner = 20, .bias = true};
  EXPECT_EQ(expert.num_bytes(), (4 * 40 * 16 + 4 * 16 + 3 * 20 * 16 + 3 * 16) * 4);
}

TEST_F(Packing, ScalesAndKThatDoNotFitAreRefusedByName) {
  const OwnedTensor codes(DType::kF8E4M3, {130, 40});
  const OwnedTensor scales(DType::kF32, {1, 1});
  EXPECT_EQ(RefusalOf([&] { WeightSource::Fp8("a.weight", codes.view(), scales.view()); }),
            "scales of a.weight are F32 [1, 1]; [2, 1] in F32, BF16 or F16 is expected");
  const OwnedTensor words(DType::kI32, {4, 5});
  EXPECT_NE(RefusalOf([&] {
              WeightSource::Int4("b.weight_packed", words.view(), scales.view());
            }).find("b.weight_packed is I32 [4, 5]; [n, k / 8] in I32 with k a multiple of the 32"),
            std::string::npos);
  const OwnedTensor blocks(DType::kU8, {4, 3, 15});
  EXPECT_NE(RefusalOf([&] {
              WeightSource::Mxfp4("c_blocks", blocks.view(), scales.view());
            }).find("c_blocks is U8 [4, 3, 15]; [n, k / 32, 16]"),
            std::string::npos);
  EXPECT_NE(RefusalOf([&] { WeightSource::Plain("d", codes.view()); }).find("d is F8_E4M3"),
            std::string::npos);
}

TEST_F(Packing, CodesAreKeptOnlyInStoredOrderAndWholeBlocks) {
  const OwnedTensor codes = BytesOf(DType::kF8E4M3, {256, 256}, 0, 1);
  const OwnedTensor scales(DType::kF32, {2, 2});
  const WeightSource source = WeightSource::Fp8("w", codes.view(), scales.view());
  EXPECT_NE(RefusalOf([&] {
              Pack(WeightFormat::kFp8, source.Transposed());
            }).find("w: 256 of its input features from 0 by 1, transposed, are wanted as fp8"),
            std::string::npos);
  const auto columns = [&](int64_t begin, int64_t count) {
    return source.Transposed().Rows(begin, count).Transposed();
  };
  EXPECT_EQ(RefusalOf([&] { Pack(WeightFormat::kFp8, columns(128, 100)); }), "");
  EXPECT_NE(RefusalOf([&] { Pack(WeightFormat::kFp8, columns(64, 128)); }), "");
}

TEST_F(Packing, ANanInFp8IsRefusedWithItsPlace) {
  OwnedTensor codes(DType::kF8E4M3, {20, 140});
  codes.view().data<uint8_t>()[17 * 140 + 130] = 0xff;
  const OwnedTensor scales(DType::kF32, {1, 2});
  const WeightSource source = WeightSource::Fp8("w", codes.view(), scales.view());
  EXPECT_EQ(RefusalOf([&] { Pack(WeightFormat::kFp8, source); }),
            "w: the value of output feature 17, input feature 130 is NaN");
}

TEST_F(Packing, Mxfp4ScalesOutsideBf16AreRefusedUnlessTheirBlockIsZero) {
  const OwnedTensor blocks(DType::kU8, {2, 2, 16});
  const OwnedTensor scales = BytesOf(DType::kU8, {2, 2}, 127, 0);
  blocks.view().data<uint8_t>()[16] = 0x08;  // -0 and 0: zeros
  scales.view().data<uint8_t>()[1] = 0;
  const WeightSource source = WeightSource::Mxfp4("w", blocks.view(), scales.view());
  EXPECT_EQ(RefusalOf([&] { Pack(WeightFormat::kMxfp4, source); }), "");
  blocks.view().data<uint8_t>()[32] = 0x10;
  for (const uint8_t scale : {uint8_t{2}, uint8_t{252}}) {
    scales.view().data<uint8_t>()[2] = scale;
    EXPECT_EQ(RefusalOf([&] { Pack(WeightFormat::kMxfp4, source); }), "") << int{scale};
  }
  for (const uint8_t scale : {uint8_t{1}, uint8_t{253}, uint8_t{255}}) {
    scales.view().data<uint8_t>()[2] = scale;
    EXPECT_NE(RefusalOf([&] {
                Pack(WeightFormat::kMxfp4, source);
              }).find("w: the scale of output feature 1, input features 0 to 31 is 2^"),
              std::string::npos)
        << int{scale};
  }
}

}  // namespace
}  // namespace wideload::compute
