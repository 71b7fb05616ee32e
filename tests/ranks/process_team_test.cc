// An engine whose other ranks take orders (ProcessTeam, RankServer), with threads in the place of
// the processes: the same results as with ranks that read the plan, and how it ends when one fails.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <thread>

#include "comm/local/local_communicator.h"
#include "exchange/local_fabric.h"
#include "runtime/engine.h"
#include "runtime/processes/rank_server.h"
#include "support/allocations.h"
#include "support/faulty_model.h"
#include "support/test_data.h"
#include "support/test_engine.h"

namespace wideload {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing_support::FaultyModel;
using testing_support::Outcome;
using testing_support::TestModel;

constexpr int32_t kRanks = 4;

// Finds no memory in one iteration.
const FaultyModel::Fault kNoMemory{.iteration = 3, .before = [](const model::Batch& batch) {
                                     Throw(ErrorKind::kResource, "no memory for {} rows",
                                           batch.ids.size());
                                   }};

class ProcessTeamTest : public testing::Test {
 protected:
  ProcessTeamTest()
      : model_(testing_support::LoadTestModel(
            testing_support::SourcePath("testdata/models/tiny-qwen3-moe"),
            compute::AutoKernelSet())) {}

  runtime::EngineOptions Options(int32_t ranks) const {
    runtime::EngineOptions options =
        testing_support::TestOptions(model_.config, compute::AutoKernelSet());
    options.layout = parallel::DataParallel(ranks);
    options.max_num_tokens = 48;
    options.deadline = std::chrono::seconds(5);
    return options;
  }

  static std::vector<runtime::Request> Requests() {
    std::vector<runtime::Request> requests;
    for (int i = 0; i < 14; ++i) {
      runtime::Request request;
      for (int j = 0; j < 3 + i * 11; ++j) request.prompt.push_back((i * 37 + j * 5) % 311);
      request.max_tokens = 30 - i;
      request.index = static_cast<uint64_t>(i);
      request.prompt_logits = i % 3 == 0;
      if (i % 2 == 0) request.sampling = {.temperature = 0.8, .seed = 3, .num_logprobs = 2};
      requests.push_back(request);
    }
    return requests;
  }

  // Runs `lead` with an engine of rank 0 while the other ranks serve. `model_of` gives the model of
  // each rank. Returns what ended the servers, "" for those that were told to stop.
  std::vector<std::string> Run(const runtime::EngineOptions& options,
                               const std::function<const model::Model&(int)>& model_of,
                               const std::function<void(runtime::Engine&)>& lead) {
    comm::LocalGroup group(kRanks, {.deadline = options.deadline});
    exchange::LocalFabrics rows(kRanks, runtime::ExchangeSegmentBytes(*model_.model, options));
    exchange::LocalFabrics orders(kRanks, runtime::MessageChannel::SegmentBytes(kRanks));
    const auto links = [&](int r) {
      return runtime::RankLinks{.group = &group.rank(r),
                                .exchange = &rows.rank(r),
                                .orders = &orders.rank(r),
                                .pending_signal = [r] { return r == 2 ? 15 : 0; },
                                .on_signal = [this](int signal) { signal_ = signal; }};
    };
    std::vector<std::string> ends(kRanks);
    std::vector<std::jthread> servers;
    for (int r = 1; r < kRanks; ++r)
      servers.emplace_back([&, r] {
        const runtime::RankLinks own = links(r);
        runtime::RankServer server(model_of(r), options, own);
        try {
          server.Serve();
        } catch (const std::exception& error) {
          ends[static_cast<size_t>(r)] = error.what();
        }
      });
    const runtime::RankLinks own = links(0);
    {
      runtime::Engine engine(model_of(0), options, own);
      lead(engine);
    }
    servers.clear();
    return ends;
  }
  std::vector<std::string> Run(const runtime::EngineOptions& options,
                               const std::function<void(runtime::Engine&)>& lead) {
    return Run(
        options, [this](int) -> const model::Model& { return *model_.model; }, lead);
  }

  TestModel model_;
  std::atomic<int> signal_ = 0;
};

const std::vector<std::string> kAllStopped(kRanks);

TEST_F(ProcessTeamTest, GivesTheLogitsAndTokensOfOneRank) {
  const std::vector<Outcome> wanted =
      testing_support::RunRequests(*model_.model, Options(1), Requests());
  EXPECT_EQ(Run(Options(kRanks),
                [&](runtime::Engine& engine) {
                  EXPECT_TRUE(testing_support::RunRequests(engine, Requests()) == wanted);
                  EXPECT_GT(engine.exchange_figures().num_rows, 0);
                }),
            kAllStopped);
}

TEST_F(ProcessTeamTest, GivesThemFromGroupsThatShareAttention) {
  const std::vector<Outcome> wanted =
      testing_support::RunRequests(*model_.model, Options(1), Requests());
  const TestModel divided = testing_support::LoadTestModel(
      testing_support::SourcePath("testdata/models/tiny-qwen3-moe"), compute::AutoKernelSet(), 2);
  runtime::EngineOptions options = Options(kRanks);
  options.layout = {.tp = 2, .dp = 2, .moe_ep = kRanks};
  options.num_kv_blocks = 24;  // some are preempted
  EXPECT_EQ(Run(
                options, [&](int) -> const model::Model& { return *divided.model; },
                [&](runtime::Engine& engine) {
                  EXPECT_TRUE(testing_support::RunRequests(engine, Requests()) == wanted);
                  EXPECT_EQ(engine.last_iteration().groups.size(), 2U);
                }),
            kAllStopped);
}

TEST_F(ProcessTeamTest, GivesThemAfterPreemptionToo) {
  const std::vector<Outcome> wanted =
      testing_support::RunRequests(*model_.model, Options(1), Requests());
  runtime::EngineOptions options = Options(kRanks);
  options.num_kv_blocks = 12;
  EXPECT_EQ(Run(options,
                [&](runtime::Engine& engine) {
                  EXPECT_TRUE(testing_support::RunRequests(engine, Requests()) == wanted);
                  EXPECT_GT(engine.scheduler().num_preemptions(), 0);
                }),
            kAllStopped);
}

TEST_F(ProcessTeamTest, ReportsTheSameFiguresAndStatisticsAsThreads) {
  const auto record = [&](runtime::Engine& engine) {
    statistics::Recorder recorder({.num_ranks = kRanks,
                                   .layers = {0, 1, 2, 3},
                                   .num_experts = 16,
                                   .experts_per_token = 4,
                                   .range = {2, 20}});
    engine.SetRecorder(&recorder);
    testing_support::RunRequests(engine, Requests());
    engine.SetRecorder(nullptr);
    return recorder.Statistics();
  };
  runtime::Engine threads(*model_.model, Options(kRanks));
  const statistics::ExpertStatistics wanted = record(threads);
  ASSERT_EQ(wanted.num_iterations, 18);
  const runtime::ExchangeFigures figures = threads.exchange_figures();
  EXPECT_EQ(Run(Options(kRanks),
                [&](runtime::Engine& engine) {
                  EXPECT_EQ(record(engine).counts, wanted.counts);
                  EXPECT_EQ(engine.exchange_figures().num_rows, figures.num_rows);
                  EXPECT_EQ(engine.exchange_figures().num_returns, figures.num_returns);
                  EXPECT_EQ(engine.exchange_figures().num_rounds, figures.num_rounds);
                  EXPECT_EQ(engine.exchange_figures().MeanImbalance(), figures.MeanImbalance());
                }),
            kAllStopped);
}

TEST_F(ProcessTeamTest, AllocatesNothingInSteadyState) {
  EXPECT_EQ(Run(Options(kRanks),
                [&](runtime::Engine& engine) {
                  runtime::Request request;
                  request.max_tokens = 100;
                  for (int i = 0; i < 6; ++i) {
                    request.prompt.assign(static_cast<size_t>(20 + i), 7 + i);
                    engine.Submit(request);
                  }
                  for (int i = 0; i < 20; ++i) engine.Step();
                  const int64_t before = testing_support::NumAllocations();
                  for (int i = 0; i < 10; ++i) engine.Step();
                  EXPECT_EQ(testing_support::NumAllocations() - before, 0);
                }),
            kAllStopped);
}

TEST_F(ProcessTeamTest, HandsOnASignalThatAnotherRankGot) {
  Run(Options(kRanks), [&](runtime::Engine& engine) {
    EXPECT_EQ(signal_, 0);
    testing_support::RunRequests(engine, {Requests()[1]});
  });
  EXPECT_EQ(signal_, 15);
}

TEST_F(ProcessTeamTest, WhatEndsARankReachesRank0AndTheOthers) {
  const FaultyModel faulty(*model_.model, kNoMemory);
  const auto model_of = [&](int r) -> const model::Model& {
    return r == 2 ? static_cast<const model::Model&>(faulty) : *model_.model;
  };
  const std::vector<std::string> ends =
      Run(Options(kRanks), model_of, [&](runtime::Engine& engine) {
        for (const auto& request : Requests()) engine.Submit(request);
        for (int i = 0; i < 3; ++i) engine.Step();
        for (int again = 0; again < 2; ++again) {
          try {
            engine.Step();
            ADD_FAILURE() << "rank 2 failed, and nothing was said";
          } catch (const comm::PeerLost& lost) {
            EXPECT_THAT(lost.what(),
                        AllOf(HasSubstr("iteration 3"), HasSubstr("rank 2 ended the group"),
                              HasSubstr("no memory for")));
          }
        }
      });
  EXPECT_THAT(ends[1], HasSubstr("no memory for"));
  EXPECT_THAT(ends[2], HasSubstr("no memory for"));
  EXPECT_THAT(ends[3], HasSubstr("no memory for"));
}

TEST_F(ProcessTeamTest, WhatEndsRank0ReachesTheOthers) {
  const FaultyModel faulty(*model_.model, kNoMemory);
  const auto model_of = [&](int r) -> const model::Model& {
    return r == 0 ? static_cast<const model::Model&>(faulty) : *model_.model;
  };
  const std::vector<std::string> ends =
      Run(Options(kRanks), model_of, [&](runtime::Engine& engine) {
        EXPECT_THROW(testing_support::RunRequests(engine, Requests()), Error);
      });
  for (const size_t r : {1, 2, 3})
    EXPECT_THAT(ends[r], AllOf(HasSubstr("rank 0 ended the group"), HasSubstr("no memory for")));
}

}  // namespace
}  // namespace wideload
