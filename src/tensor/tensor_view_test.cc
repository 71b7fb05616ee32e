#include "tensor/tensor_view.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tensor/buffer.h"

namespace wideload {
namespace {

TEST(BF16Rounding, RoundsToNearestEvenAndKeepsNaN) {
  EXPECT_EQ(ToBF16(1.0F).bits, 0x3f80);
  EXPECT_EQ(ToBF16(std::bit_cast<float>(0x3f808000U)).bits, 0x3f80);  // tie to even
  EXPECT_EQ(ToBF16(std::bit_cast<float>(0x3f818000U)).bits, 0x3f82);
  EXPECT_TRUE(std::isnan(ToFloat(ToBF16(std::bit_cast<float>(0x7f800001U)))));
  EXPECT_TRUE(std::isinf(ToFloat(ToBF16(std::numeric_limits<float>::max()))));
}

TEST(HalfToFloat, CoversSubnormalsAndInfinities) {
  EXPECT_EQ(HalfToFloat(0x3c00), 1.0F);
  EXPECT_EQ(HalfToFloat(0x0001), std::ldexp(1.0F, -24));
  EXPECT_EQ(HalfToFloat(0xfbff), -65504.0F);
  EXPECT_TRUE(std::isinf(HalfToFloat(0x7c00)));
}

TEST(LoadFloat, ReadsF8E4M3) {
  const uint8_t bytes[] = {0x00, 0x01, 0x08, 0x7e, 0xff, 0xb8};
  const float expected[] = {0.0F, std::ldexp(1.0F, -9), std::ldexp(1.0F, -6), 448.0F, 0.0F, -1.0F};
  for (int i : {0, 1, 2, 3, 5}) EXPECT_EQ(LoadFloat(DType::kF8E4M3, bytes, i), expected[i]) << i;
  EXPECT_TRUE(std::isnan(LoadFloat(DType::kF8E4M3, bytes, 4)));
}

TEST(TensorView, ColumnsKeepTheStrideOfTheirRows) {
  std::vector<float> data(12);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i);
  const TensorView columns = TensorView(DType::kF32, {3, 4}, data.data()).Columns(1, 2);
  EXPECT_EQ(columns.shape(), (Shape{3, 2}));
  EXPECT_EQ(columns.row<float>(2)[1], 10.0F);
}

TEST(TensorView, WalksPaddedRows) {
  std::vector<float> data(12);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i);
  const TensorView view(DType::kF32, {3, 2}, data.data(), 4);
  EXPECT_EQ(view.row<float>(2)[1], 9.0F);
  EXPECT_FALSE(view.dense());
  EXPECT_EQ(view.Rows(1, 2).row<float>(0)[0], 4.0F);
  EXPECT_DEATH(view.Rows(2, 2), "rows");
}

TEST(Workspace, ReusesItsMemoryAfterReset) {
  Workspace workspace;
  for (int i = 0; i < 3; ++i) {
    workspace.Take<float>(1000);
    workspace.Take<char>(100000);
    workspace.Reset();
  }
  const int64_t blocks = workspace.num_allocations();
  for (int i = 0; i < 10; ++i) {
    const std::span<float> a = workspace.Take<float>(1000);
    const std::span<char> b = workspace.Take<char>(100000);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(b.data()) % 64, 0u);
    EXPECT_LE(reinterpret_cast<char*>(a.data() + a.size()), b.data());
    workspace.Reset();
  }
  EXPECT_EQ(workspace.num_allocations(), blocks);
}

}  // namespace
}  // namespace wideload
