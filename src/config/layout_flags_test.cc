#include "config/layout_flags.h"

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace wideload::config {
namespace {

using parallel::Layout;

std::string Refusal(const EngineFlags& flags, int32_t num_processes = 0) {
  try {
    ResolveLayout(flags, num_processes);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(ResolveLayout, OfNothingIsOneRankOrTheProcesses) {
  EXPECT_EQ(ResolveLayout({}, 0), Layout());
  EXPECT_EQ(ResolveLayout({}, 4), parallel::DataParallel(4));
}

TEST(ResolveLayout, OfEpAloneIsRanksWithRequestsOfTheirOwn) {
  EXPECT_EQ(ResolveLayout({.ep = 8}, 0), parallel::DataParallel(8));
  EXPECT_EQ(ResolveLayout({.ep = 8}, 8), parallel::DataParallel(8));
}

TEST(ResolveLayout, SharesAttentionAmongTheRanksOfTp) {
  EXPECT_EQ(ResolveLayout({.tp = 4}, 0), (Layout{.tp = 4, .moe_ep = 4}));
  EXPECT_EQ(ResolveLayout({.tp = 4, .ep = 4}, 0), (Layout{.tp = 4, .moe_ep = 4}));
  EXPECT_EQ(ResolveLayout({.tp = 4, .ep = 4}, 4), (Layout{.tp = 4, .moe_ep = 4}));
}

TEST(ResolveLayout, WithAttentionDpIsTensorRtLlmsOfTheSameKeys) {
  EXPECT_EQ(ResolveLayout({.tp = 8, .ep = 8, .attention_dp = true}, 0), parallel::DataParallel(8));
  EXPECT_EQ(ResolveLayout({.ep = 8, .attention_dp = true}, 0), parallel::DataParallel(8));
}

TEST(ResolveLayout, MixesBothOverGroups) {
  const Layout mixed{.tp = 2, .dp = 4, .moe_ep = 8};
  EXPECT_EQ(ResolveLayout({.tp = 2, .dp = 4}, 0), mixed);
  EXPECT_EQ(ResolveLayout({.tp = 2, .dp = 4, .ep = 8}, 8), mixed);
  EXPECT_EQ(ResolveLayout({.tp = 2}, 8), mixed) << "as many groups as the processes are";
}

TEST(ResolveLayout, SharesContextsAmongGroupsOfTp) {
  EXPECT_EQ(ResolveLayout({.cp = 2}, 0), (Layout{.cp = 2, .moe_ep = 2}));
  EXPECT_EQ(ResolveLayout({.tp = 2, .cp = 4}, 8), (Layout{.tp = 2, .cp = 4, .moe_ep = 8}));
  EXPECT_EQ(ResolveLayout({.cp = 2}, 8), (Layout{.dp = 4, .cp = 2, .moe_ep = 8}));
  EXPECT_EQ(ResolveLayout({.tp = 4, .cp = 2, .ep = 4, .attention_dp = true}, 0),
            (Layout{.dp = 4, .cp = 2, .moe_tp = 2, .moe_ep = 4}));
  EXPECT_EQ(Refusal({.cp = 3}), "--cp is 3; allowed are 1, 2, 4 and 8");
  EXPECT_EQ(Refusal({.cp = 2, .ep = 8}),
            "--ep is 8, but --cp is 2: the experts lie on 2 ranks, and --ep x --moe-tp must be as "
            "many");
}

TEST(ResolveLayout, DividesExpertsAsTensorRtLlmDoes) {
  const Layout hybrid{.tp = 8, .moe_tp = 4, .moe_ep = 2};
  EXPECT_EQ(ResolveLayout({.tp = 8, .ep = 2, .moe_tp = 4}, 0), hybrid);
  EXPECT_EQ(ResolveLayout({.tp = 8, .ep = 2}, 0), hybrid);
  EXPECT_EQ(ResolveLayout({.tp = 8, .moe_tp = 4}, 8), hybrid);
  EXPECT_EQ(ResolveLayout({.tp = 8, .moe_tp = 8}, 0), (Layout{.tp = 8, .moe_tp = 8}));
  const Layout own_requests{.dp = 4, .moe_tp = 2, .moe_ep = 2};
  EXPECT_EQ(ResolveLayout({.ep = 2, .moe_tp = 2}, 0), own_requests);
  EXPECT_EQ(ResolveLayout({.moe_tp = 2}, 4), own_requests);
}

TEST(ResolveLayout, RefusesContradictionsNamingBothOptionsAndValues) {
  EXPECT_EQ(Refusal({.tp = 2, .ep = 8}),
            "--ep is 8, but --tp is 2: the experts lie on 2 ranks, and --ep x --moe-tp must be as "
            "many");
  EXPECT_EQ(Refusal({.tp = 8, .dp = 2, .attention_dp = true}),
            "--tp is 8 and --dp is 2; with --attention-dp (enable_attention_dp) each of the 8 "
            "ranks has requests of its own: leave --dp away");
  EXPECT_EQ(Refusal({.ep = 4}, 2),
            "--ep is 4; 2 processes were started together and each is a rank: leave --ep away, or "
            "start 4 processes");
  EXPECT_EQ(Refusal({.tp = 4, .dp = 2}, 4),
            "--tp is 4 and --dp is 2; 4 processes were started together and each is a rank: leave "
            "it away, or start 8 processes");
  EXPECT_EQ(Refusal({.tp = 8, .ep = 4, .moe_tp = 4}),
            "--ep is 4 and --moe-tp is 4, but --tp is 8: the experts lie on 8 ranks, and --ep x "
            "--moe-tp must be as many");
  EXPECT_EQ(Refusal({.moe_tp = 3}, 8),
            "--moe-tp is 3; 8 processes were started together and each is a rank: leave --moe-tp "
            "away, or start 3 processes");
  EXPECT_EQ(Refusal({.ep = 2, .moe_tp = 2}, 8),
            "--ep is 2 and --moe-tp is 2; 8 processes were started together and each is a rank: "
            "leave it away, or start 4 processes");
}

TEST(ResolveLayout, HasAllOfThatInEachStage) {
  const Layout stages{.dp = 2, .pp = 2, .moe_ep = 2};
  EXPECT_EQ(ResolveLayout({.ep = 2, .pp = 2}, 0), stages);
  EXPECT_EQ(ResolveLayout({.pp = 2}, 4), stages);
  EXPECT_EQ(Refusal({.pp = 2}, 3),
            "--pp is 2; 3 processes were started together, which are to be as many in each stage");
  EXPECT_EQ(Refusal({.ep = 4, .pp = 2}, 4),
            "in each of 2 stages (--pp): --ep is 4; 2 processes were started together and each is "
            "a rank: leave --ep away, or start 4 processes");
  EXPECT_EQ(NumMicroBatches({.pp = 4}), 4);
  EXPECT_EQ(NumMicroBatches({.pp = 4, .pp_micro_batches = 2}), 2);
}

TEST(ResolveLayout, NamesTheKeyOfAFileWhereItSaysTheValue) {
  EngineFlags flags{.tp = 2, .ep = 8};
  flags.sources["--tp"] = "c.yaml:3: tensor_parallel_size";
  EXPECT_EQ(Refusal(flags),
            "--ep is 8, but c.yaml:3: tensor_parallel_size is 2: the experts lie on 2 ranks, and "
            "--ep x --moe-tp must be as many");
}

}  // namespace
}  // namespace wideload::config
