#include "runtime/prompt_balance.h"

#include <gtest/gtest.h>

namespace wideload::runtime {
namespace {

constexpr PromptBalanceOptions kBalance{
    .enable_balance = true, .timeout_iters = 5, .batching_wait_iters = 2};

// Four groups that decode.
GroupsWork Decoding(int64_t num_with_prompts, int64_t num_waiting) {
  return {.num_groups = 4,
          .num_with_prompts = num_with_prompts,
          .num_with_decodes = 4,
          .num_waiting = num_waiting};
}

// Iterations until prompts are computed, at most 100.
int NumHeld(PromptBalance& balance, const GroupsWork& work) {
  int held = 0;
  while (held < 100 && balance.HoldsPrompts(work)) ++held;
  return held;
}

TEST(PromptBalance, HoldsAPromptUntilEveryGroupHasOneOrTheTimeIsOver) {
  PromptBalance balance(kBalance);
  EXPECT_EQ(NumHeld(balance, Decoding(1, 0)), 5);
  EXPECT_EQ(NumHeld(balance, Decoding(0, 3)), 5) << "the time begins anew";
  EXPECT_EQ(NumHeld(balance, Decoding(0, 4)), 2) << "for more to come, while every group has one";
  EXPECT_EQ(NumHeld(balance, Decoding(3, 1)), 2);
}

TEST(PromptBalance, WaitsForOneTimeAfterTheOther) {
  PromptBalance balance(kBalance);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(balance.HoldsPrompts(Decoding(1, 1)));
  EXPECT_EQ(NumHeld(balance, Decoding(1, 3)), 2);
  EXPECT_EQ(NumHeld(balance, Decoding(1, 2)), 5);
}

TEST(PromptBalance, WaitsForNoGroupThatIsFull) {
  PromptBalance balance(kBalance);
  GroupsWork work = Decoding(0, 8);
  work.num_full = 1;
  EXPECT_EQ(NumHeld(balance, work), 5);
}

TEST(PromptBalance, HoldsNothingWhereAGroupHasNothingElseToDo) {
  PromptBalance balance(kBalance);
  GroupsWork work = Decoding(1, 0);
  work.num_with_decodes = 3;
  EXPECT_FALSE(balance.HoldsPrompts(work));
  EXPECT_FALSE(balance.HoldsPrompts(Decoding(0, 0))) << "no prompt is there";
  PromptBalance off({});
  EXPECT_FALSE(off.HoldsPrompts(Decoding(1, 0)));
  EXPECT_FALSE(balance.HoldsPrompts({.num_with_decodes = 1, .num_waiting = 1})) << "one group";
}

}  // namespace
}  // namespace wideload::runtime
