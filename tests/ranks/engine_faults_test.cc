// A rank of an engine that stops answering ends the run: the others say what they waited for, the
// statistics of the iterations before can be written, and the engine can be destroyed.
#include <gtest/gtest.h>
#include <pthread.h>
#include <unistd.h>

#include <array>

#include "comm/communicator.h"
#include "runtime/engine.h"
#include "support/faulty_model.h"
#include "support/random_model.h"
#include "support/test_data.h"
#include "support/test_engine.h"

namespace wideload {
namespace {

using testing_support::FaultyModel;
using testing_support::TestModel;

constexpr int32_t kRanks = 4;
constexpr int32_t kFaulty = 2;
constexpr int64_t kIteration = 3;

// Whether this is the thread of the faulty rank.
bool IsFaultyRank() {
  std::array<char, 16> name{};
  ::pthread_getname_np(::pthread_self(), name.data(), name.size());
  return name.data() == fmt::format("rank {}", kFaulty);
}

void StopForGood(const model::Batch&) {
  while (IsFaultyRank()) ::pause();
}

// Of the whole program: a thread that is stuck keeps what it uses until the end.
const TestModel& TinyModel() {
  static const auto* model = new TestModel(testing_support::LoadTestModel(
      testing_support::SourcePath("testdata/models/tiny-qwen3-moe"), compute::AutoKernelSet()));
  return *model;
}

std::unique_ptr<runtime::Engine> EngineWith(FaultyModel::Fault fault) {
  fault.iteration = kIteration;
  const auto* faulty =
      new FaultyModel(*TinyModel().model, std::move(fault));  // never freed, as above
  runtime::EngineOptions options =
      testing_support::TestOptions(TinyModel().config, compute::AutoKernelSet());
  options.layout = parallel::DataParallel(kRanks);
  options.deadline = std::chrono::milliseconds(500);
  auto engine = std::make_unique<runtime::Engine>(*faulty, options);
  for (int i = 0; i < 2 * kRanks; ++i) {
    runtime::Request request;
    request.prompt = {1, 2, 3 + i};
    request.max_tokens = 20;
    engine->Submit(request);
  }
  return engine;
}

// What Step throws in the iteration of the fault.
std::string RunToFault(runtime::Engine& engine) {
  try {
    while (!engine.idle()) engine.Step();
  } catch (const Error& error) {
    EXPECT_EQ(engine.last_iteration().iteration, kIteration);
    return error.what();
  }
  return "nothing";
}

TEST(StuckRank, EndsTheOthersWhoNameItAndWhatItOwes) {
  const auto engine = EngineWith({.before = StopForGood});
  try {
    while (!engine->idle()) engine->Step();
    FAIL() << "the run came to its end";
  } catch (const comm::PeerLost& lost) {
    EXPECT_EQ(lost.kind(), ErrorKind::kRunFailed);
    EXPECT_EQ(lost.details().peer, kFaulty);
    EXPECT_FALSE(lost.details().is_told);
    // 4 MoE layers of one round in each of three iterations came before.
    EXPECT_NE(std::string(lost.what())
                  .find("iteration 3, layer 0: waited for the counts of round 12 of rank 2: no "
                        "answer for"),
              std::string::npos)
        << lost.what();
  }
  ASSERT_EQ(engine->stuck_ranks().size(), 1u);
  EXPECT_EQ(engine->stuck_ranks()[0], kFaulty);
  EXPECT_THROW(engine->Step(), comm::PeerLost);
}

TEST(StuckRank, IsFoundAlsoWhenNoOtherRankNeedsIt) {
  const auto engine = EngineWith({.after = StopForGood});
  EXPECT_EQ(RunToFault(*engine),
            "iteration 3: waited for the end of the iteration of rank 2: no answer for 0.5 s after "
            "the first rank had ended it");
  ASSERT_EQ(engine->stuck_ranks().size(), 1u);
  EXPECT_EQ(engine->stuck_ranks()[0], kFaulty);
}

TEST(StuckRank, LeavesTheStatisticsOfTheIterationsBefore) {
  statistics::Recorder recorder({.num_ranks = kRanks,
                                 .layers = TinyModel().model->spec().moe.layers,
                                 .num_experts = 16,
                                 .experts_per_token = 4});
  const auto engine = EngineWith({.before = StopForGood});
  engine->SetRecorder(&recorder);
  RunToFault(*engine);
  const std::string folder = testing_support::TemporaryFolder("stuck") + "/statistics";
  recorder.Write(folder, statistics::ExistingFolder::kRefuse);
  EXPECT_EQ(statistics::ReadStatistics(folder, {}).num_iterations, kIteration);
}

TEST(FailedRank, GivesItsErrorToTheCaller) {
  const auto engine = EngineWith({.before = [](const model::Batch&) {
    if (IsFaultyRank()) Throw(ErrorKind::kResource, "no memory for the rows of rank {}", kFaulty);
  }});
  EXPECT_EQ(RunToFault(*engine), "no memory for the rows of rank 2");
  EXPECT_TRUE(engine->stuck_ranks().empty());
  EXPECT_EQ(engine->num_unfinished(), 2 * kRanks);
  EXPECT_THROW(engine->Step(), Error);
}

}  // namespace
}  // namespace wideload
