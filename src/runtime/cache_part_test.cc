#include "runtime/cache_part.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

namespace wideload::runtime {
namespace {

using Moves = std::vector<BlockMove>;

PartLink Turns(int32_t from, int32_t num_from, int32_t to, int32_t num_to) {
  return {.from = {.layers = {}, .heads = {}, .turn = from, .num_turns = num_from},
          .to = {.layers = {}, .heads = {}, .turn = to, .num_turns = num_to}};
}

TEST(RanksOfGroup, AreThoseWhoseCoordinatesSayThatTheyShareItsRequests) {
  parallel::Layout layout{.tp = 2, .dp = 3, .cp = 2, .pp = 2};
  std::set<int32_t> all;
  for (int32_t group = 0; group < 2 * layout.dp; ++group) {
    const std::vector<int32_t> ranks = RanksOfGroup(layout, group);
    ASSERT_EQ(ranks.size(), 8U);
    EXPECT_EQ(MicroBatchOf(layout, group), group / 3);
    for (size_t i = 0; i < ranks.size(); ++i) {
      const parallel::Coordinates place = parallel::CoordinatesOf(layout, ranks[i]);
      EXPECT_EQ(place.dp, group % 3);
      EXPECT_EQ(static_cast<size_t>((place.pp * 2 + place.cp) * 2 + place.tp), i);
      all.insert(ranks[i]);
    }
  }
  EXPECT_EQ(all.size(), static_cast<size_t>(layout.world()));
}

TEST(CachePartOf, HasTheLayersOfUnequalStages) {
  EngineOptions options;
  options.layout = {.tp = 2, .cp = 2, .pp = 2};
  options.stage_layers = {3, 5};
  const CachePart part = CachePartOf(options, 8, 7);
  EXPECT_EQ(part.layers, (parallel::Shard{.begin = 3, .end = 8}));
  EXPECT_EQ(part.heads.rank, 1);
  EXPECT_EQ(part.heads.size, 2);
  EXPECT_EQ(part.turn, 1);
  EXPECT_EQ(part.num_turns, 2);
}

TEST(MovesOf, TakesTheBlocksFromTheFirstThatIsNotHere) {
  const BlockTable from{.blocks = {-1, 5, 6, 7}, .num_given_back = 1};
  const BlockTable to{.blocks = {1, 2, 3, 4}};
  EXPECT_EQ(MovesOf(from, to, Turns(0, 1, 0, 1), 0), (Moves{{5, 2}, {6, 3}, {7, 4}}));
  EXPECT_EQ(MovesOf(from, to, Turns(0, 1, 0, 1), 3), (Moves{{7, 4}}));
  EXPECT_EQ(MovesOf(from, to, Turns(0, 1, 0, 1), 4), Moves{});
}

// Five blocks of a sequence: 0 to 4.
TEST(MovesOf, TakesOfBlocksInTurnsThoseOfBothRanks) {
  const BlockTable alone{.blocks = {10, 11, 12, 13, 14}};
  const BlockTable in_twos{.blocks = {20, 21, 22}};
  const BlockTable in_fours{.blocks = {30, 31}};
  EXPECT_EQ(MovesOf(alone, in_twos, Turns(0, 1, 0, 2), 0), (Moves{{10, 20}, {12, 21}, {14, 22}}));
  EXPECT_EQ(MovesOf(alone, in_twos, Turns(0, 1, 1, 2), 0), (Moves{{11, 20}, {13, 21}}));
  EXPECT_EQ(MovesOf(in_twos, alone, Turns(1, 2, 0, 1), 0), (Moves{{20, 11}, {21, 13}}));
  EXPECT_EQ(MovesOf(in_twos, alone, Turns(1, 2, 0, 1), 2), (Moves{{21, 13}}));
  EXPECT_EQ(MovesOf(in_twos, in_fours, Turns(0, 2, 2, 4), 0), (Moves{{21, 30}}));
  EXPECT_EQ(MovesOf(in_twos, in_fours, Turns(1, 2, 2, 4), 0), Moves{});
  EXPECT_EQ(MovesOf(in_fours, in_twos, Turns(2, 4, 0, 2), 1), (Moves{{30, 21}}));
}

// Each block that is not given back comes from one rank and goes to one, whatever the turns.
TEST(MovesOf, MovesEachBlockOnce) {
  constexpr int64_t kBlocks = 21;
  for (const int32_t from_turns : {1, 2, 4, 8})
    for (const int32_t to_turns : {1, 2, 4, 8})
      for (const int64_t behind : {0, 3, 9}) {
        const auto table = [&](int32_t turns, int32_t number) {
          BlockTable of_turns{.blocks = {}, .num_given_back = behind / turns};
          for (int64_t b = 0; b < kBlocks; b += turns)
            of_turns.blocks.push_back(number + static_cast<int32_t>(b / turns));
          return of_turns;
        };
        std::map<int64_t, int> times;
        for (int32_t f = 0; f < from_turns; ++f)
          for (int32_t t = 0; t < to_turns; ++t)
            for (const BlockMove& move : MovesOf(table(from_turns, 100), table(to_turns, 200),
                                                 Turns(f, from_turns, t, to_turns), 0)) {
              const int64_t block = int64_t{move.from - 100} * from_turns + f;
              EXPECT_EQ(block, int64_t{move.to - 200} * to_turns + t);
              ++times[block];
            }
        for (int64_t block = behind; block < kBlocks; ++block) EXPECT_EQ(times[block], 1) << block;
        for (const auto& [block, count] : times) EXPECT_EQ(count, 1) << block;
      }
}

TEST(TakesAll, KnowsWhenBlocksAreMissing) {
  const BlockTable three{.blocks = {1, 2, 3}};
  const BlockTable two{.blocks = {1, 2}};
  const BlockTable given_back{.blocks = {-1, 2, 3}, .num_given_back = 1};
  const auto takes = [](const BlockTable& from, const BlockTable& to, int32_t from_turns,
                        int32_t to_turns, int64_t first_block) {
    return TakesAll(from, to, Turns(0, from_turns, 0, to_turns), first_block);
  };
  EXPECT_TRUE(takes(three, three, 1, 1, 0));
  EXPECT_TRUE(takes(two, three, 1, 1, 0));
  EXPECT_FALSE(takes(three, two, 1, 1, 0));
  EXPECT_TRUE(takes(three, two, 1, 1, 3));  // nothing is missing
  EXPECT_FALSE(takes(three, given_back, 1, 1, 0));
  EXPECT_TRUE(takes(given_back, given_back, 1, 1, 0));
  EXPECT_TRUE(takes(three, given_back, 1, 1, 1));
  EXPECT_TRUE(takes(three, two, 1, 2, 0));
  EXPECT_TRUE(takes(two, three, 2, 1, 0));  // of the fourth there is nothing
  EXPECT_FALSE(takes(two, two, 2, 1, 0));
  EXPECT_TRUE(takes(two, given_back, 2, 1, 0));  // which the other side gives back by two
}

}  // namespace
}  // namespace wideload::runtime
