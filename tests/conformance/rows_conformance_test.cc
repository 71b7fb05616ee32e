// The bits of ops that do the same with every element, in every kernel set.
#include <bit>
#include <utility>

#include "ops_conformance.h"

namespace wideload::compute {
namespace {

TEST_P(OpsConformance, CombineAddsTheSumOverKAscendingInOneGo) {
  constexpr int64_t kTokens = 3;
  constexpr int64_t kTopK = 6;
  for (const int64_t width : {5, 16, 1032}) {
    const OwnedTensor rows = RandomTensor(compute_dtype(), {kTokens * kTopK, width}, 1);
    const OwnedTensor weights = RandomTensor(DType::kF32, {kTokens, kTopK}, 2);
    const OwnedTensor before = RandomTensor(DType::kF32, {kTokens, width}, 3);
    // Some rows stand where no pack of elements may begin.
    const StridedTensor odd(rows, 1);
    const StridedTensor y(before, 4);
    std::vector<const std::byte*> pointers = RowPointers(rows.view());
    const std::vector<const std::byte*> odd_pointers = RowPointers(odd.view());
    for (size_t i = 0; i < pointers.size(); i += 3) pointers[i] = odd_pointers[i];
    CombineRows(With(2), pointers, weights.view(), y.view());
    for (int64_t i = 0; i < before.size(); ++i) {
      const int64_t t = i / width;
      float sum = 0;
      for (int64_t k = 0; k < kTopK; ++k) {
        const float value = rows.at((t * kTopK + k) * width + i % width);
        sum = MultiplyAdd(weights.at(t * kTopK + k), value, sum);
      }
      ASSERT_EQ(y.view().row<float>(t)[i % width], before.at(i) + sum) << width << " " << i;
    }
  }
}

TEST_P(OpsConformance, EmbedWidensEveryHalfExactly) {
  constexpr int64_t kRows = 8;
  constexpr int64_t kWidth = (1 << 16) / kRows;
  const OwnedTensor table(DType::kF16, {kRows, kWidth});
  auto* const halves = table.view().data<uint16_t>();
  for (int64_t i = 0; i < table.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  std::vector<int32_t> ids = {5, 0, 7, 1, 2, 3, 6, 4};
  // Few at once and all that are not a multiple of what a processor takes at once.
  for (const int64_t width : {int64_t{3}, kWidth}) {
    const OwnedTensor y(DType::kF32, {kRows, width});
    Embed(With(1), table.view().Columns(0, width), ids, y.view());
    for (int64_t i = 0; i < y.size(); ++i) {
      const auto row = static_cast<size_t>(i / width);
      const float expected = HalfToFloat(halves[ids[row] * kWidth + i % width]);
      ASSERT_EQ(std::bit_cast<uint32_t>(y.at(i)), std::bit_cast<uint32_t>(expected)) << i;
    }
  }
}

// Rows in any order, repeated and left out.
TEST_P(OpsConformance, GatherRowsCopiesTheRowsThatAreNamed) {
  const std::vector<int32_t> indices = {4, 0, 4, 2, 6};
  for (const DType dtype : {DType::kF32, compute_dtype()}) {
    for (const int64_t width : {1, 7, 40, 4100}) {
      const StridedTensor x(RandomTensor(dtype, {7, width}, 1), width % 8);
      const StridedTensor y(RandomTensor(dtype, {5, width}, 2), 3);
      const OwnedTensor none(dtype, {0, width});
      GatherRows(With(2), x.view(), indices, y.view());
      for (size_t i = 0; i < indices.size(); ++i) {
        const auto row = static_cast<int64_t>(i);
        ASSERT_TRUE(SameBits(y.view().Rows(row, 1), x.view().Rows(indices[i], 1))) << width;
      }
      GatherRows(With(1), x.view(), {}, none.view());
    }
  }
}

// Rows, or parts of heads, of as many elements as fit registers, that begin where none would.
TEST_P(OpsConformance, ConvertEmbedAndRopeTakeRowsThatBeginAtAnyElement) {
  constexpr int64_t kRows = 3;
  constexpr int64_t kWidth = 16;
  const OwnedTensor x = RandomTensor(DType::kF32, {kRows, kWidth + 4}, 1);
  const OwnedTensor table = RandomTensor(DType::kBF16, {kRows, kWidth + 4}, 2);
  const std::vector<int32_t> ids = {2, 0, 1};
  const OwnedTensor cos = RandomTensor(DType::kF32, {kRows, 8}, 3);
  const OwnedTensor sin = RandomTensor(DType::kF32, {kRows, 8}, 4);
  for (const auto& [from, to] : {std::pair{1, 0}, std::pair{0, 1}, std::pair{3, 2}}) {
    const TensorView part = x.view().Columns(from, kWidth);
    for (const DType dtype : {DType::kF32, compute_dtype()}) {
      const OwnedTensor y(dtype, {kRows, kWidth + 4});
      Convert(With(1), part, y.view().Columns(to, kWidth));
      EXPECT_TRUE(SameBits(y.view().Columns(to, kWidth), CopyOf(part, dtype).view())) << from;
    }
    const OwnedTensor h(DType::kF32, {kRows, kWidth + 4});
    Embed(With(1), table.view().Columns(from, kWidth), ids, h.view().Columns(to, kWidth));
    for (int64_t r = 0; r < kRows; ++r) {
      const TensorView row = table.view().Rows(ids[static_cast<size_t>(r)], 1);
      EXPECT_TRUE(SameBits(h.view().Columns(to, kWidth).Rows(r, 1),
                           CopyOf(row.Columns(from, kWidth), DType::kF32).view()));
    }
    const OwnedTensor rotated = CopyOf(x.view(), DType::kF32);
    const OwnedTensor alone = CopyOf(part, DType::kF32);
    const RopeRows rope = {.cos = cos.view(), .sin = sin.view()};
    Rope(With(1), {.rows = rotated.view(), .first = from, .width = kWidth}, RopePairs::kHalfSplit,
         rope);
    Rope(With(1), {.rows = alone.view()}, RopePairs::kHalfSplit, rope);
    EXPECT_TRUE(SameBits(rotated.view().Columns(from, kWidth), alone.view())) << from;
  }
}

}  // namespace
}  // namespace wideload::compute
