#include "exchange/layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/error.h"

namespace wideload::exchange {
namespace {

constexpr ExchangeShape kThreeRanks{.num_ranks = 3,
                                    .max_rows = 5,
                                    .top_k = 2,
                                    .row_bytes = 130,
                                    .return_row_bytes = 64,
                                    .num_experts = 40,
                                    .num_slots = 42,
                                    .num_buffers = 2};

struct Piece {
  int64_t begin;
  int64_t end;
};

TEST(ExchangeLayout, PiecesAreAlignedAndDoNotOverlap) {
  const ExchangeLayout layout(kThreeRanks);
  std::vector<Piece> pieces = {{0, sizeof(SegmentHeader)}};
  for (int source = 0; source < 3; ++source) {
    pieces.push_back(
        {layout.AbortCell(source), layout.AbortText(source) + ExchangeLayout::kAbortTextBytes});
    for (int64_t round = 0; round < 3; ++round)
      pieces.push_back({layout.CountsCell(round, source),
                        layout.CountsPayload(round, source) + layout.counts_payload_bytes()});
    for (int64_t round = 0; round < 2; ++round) {
      pieces.push_back({layout.RegionCell(round, source),
                        layout.RegionHeader(round, source) + layout.RegionPayloadBytes(5)});
      pieces.push_back({layout.ReturnCell(round, source), layout.ReturnCell(round, source) + 128});
    }
  }
  for (int64_t round = 0; round < 2; ++round)
    for (int64_t i = 0; i < 10; ++i)
      pieces.push_back({layout.ReturnRow(round, i), layout.ReturnRow(round, i) + 64});
  std::sort(pieces.begin(), pieces.end(),
            [](const Piece& a, const Piece& b) { return a.begin < b.begin; });
  for (size_t i = 0; i < pieces.size(); ++i) {
    EXPECT_EQ(pieces[i].begin % 128, 0);
    EXPECT_LE(pieces[i].end,
              i + 1 < pieces.size() ? pieces[i + 1].begin : SegmentBytes(kThreeRanks));
  }
}

TEST(ExchangeLayout, TheLastRowOfARegionEndsWithIt) {
  const ExchangeLayout layout(kThreeRanks);
  for (int64_t num_rows = 1; num_rows <= 5; ++num_rows)
    EXPECT_EQ(layout.RegionRow(1, 2, num_rows, num_rows),
              layout.RegionHeader(1, 2) + layout.RegionPayloadBytes(num_rows));
  EXPECT_EQ(layout.RegionRow(1, 2, 5, 5), layout.RegionCell(1, 2) + layout.region_bytes());
}

TEST(ExchangeLayout, BuffersComeRoundAndCountsHaveOneMore) {
  const ExchangeLayout layout(kThreeRanks);
  EXPECT_EQ(layout.RegionCell(7, 1), layout.RegionCell(1, 1));
  EXPECT_NE(layout.RegionCell(6, 1), layout.RegionCell(7, 1));
  EXPECT_EQ(layout.CountsCell(7, 1), layout.CountsCell(1, 1));
  EXPECT_NE(layout.CountsCell(5, 1), layout.CountsCell(7, 1));
}

// hidden 7168 in bf16, 8 ranks, 128 rows each, top-8, two buffers: 28 MB of rows each way.
TEST(SegmentBytes, IsThatOfTheRowsPlusLittle) {
  const ExchangeShape shape{.num_ranks = 8,
                            .max_rows = 128,
                            .top_k = 8,
                            .row_bytes = 14336,
                            .return_row_bytes = 14336,
                            .num_experts = 256,
                            .num_slots = 256,
                            .num_buffers = 2};
  const int64_t rows = 2 * (8 * 128 * 14336 + 128 * 8 * 14336);
  EXPECT_GE(SegmentBytes(shape), rows);
  EXPECT_LE(SegmentBytes(shape), rows + (256 << 10));
}

std::string Refusal(const ExchangeShape& shape) {
  try {
    ValidateShape(shape);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(ValidateShape, NamesTheFieldItsValueAndWhatIsAllowed) {
  EXPECT_EQ(Refusal(kThreeRanks), "");
  ExchangeShape shape = kThreeRanks;
  shape.num_slots = 41;
  EXPECT_EQ(Refusal(shape), "exchange: num_slots is 41; allowed: a multiple of num_ranks");
  shape = kThreeRanks;
  shape.max_rows = 0;
  EXPECT_EQ(Refusal(shape), "exchange: max_rows is 0; allowed: 1 to 2^31 / top_k");
  shape = kThreeRanks;
  shape.num_buffers = 0;
  EXPECT_EQ(Refusal(shape), "exchange: num_buffers is 0; allowed: 1 to 64");
}

TEST(Fingerprint, ChangesWithEveryField) {
  std::vector<ExchangeShape> shapes(10, kThreeRanks);
  shapes[1].num_ranks = 6;
  shapes[2].max_rows = 6;
  shapes[3].top_k = 3;
  shapes[4].row_bytes = 131;
  shapes[5].return_row_bytes = 65;
  shapes[6].num_experts = 41;
  shapes[7].num_slots = 45;
  shapes[8].num_buffers = 3;
  shapes[9].first_epoch = 1;
  std::vector<uint64_t> prints;
  for (const ExchangeShape& shape : shapes) prints.push_back(Fingerprint(shape));
  std::sort(prints.begin(), prints.end());
  EXPECT_EQ(std::unique(prints.begin(), prints.end()), prints.end());
}

}  // namespace
}  // namespace wideload::exchange
