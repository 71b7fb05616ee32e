// Same bits while weights move: every layer's placement is drawn anew at every iteration, and 32
// concurrent requests get the tokens and logits of one rank without changes. Threads and processes,
// both storages of slots, chunked and not, in step and in microbatch mode.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "base/error.h"
#include "support/engine_processes.h"
#include "support/faulty_model.h"
#include "support/random_layout.h"
#include "support/random_moves.h"
#include "support/test_data.h"

namespace wideload {
namespace {

using moe::SlotStorage;
using testing_support::Outcome;
using testing_support::TestModel;

// Attention of both kinds, bf16 and block-scaled fp8.
constexpr const char* kModels[] = {"tiny-qwen3-moe", "tiny-deepseek-v3", "tiny-deepseek-v3-fp8"};
constexpr size_t kNumRequests = 32;
constexpr uint64_t kSeed = 12;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kLayouts = 4;  // an order of magnitude slower: those of 8 ranks must do
#else
constexpr int kLayouts = 8;
#endif
constexpr int64_t kLeastIterations = 20;  // of each layout; some 600 in all

struct MovingLayout {
  int32_t num_ranks = 8;
  SlotStorage storage = SlotStorage::kView;
  int64_t moe_max_num_tokens = 0;
  bool verify_slots = false;
  moe::MoeMode mode = moe::MoeMode::kBarrier;
};

class Moves : public testing::TestWithParam<const char*> {
 protected:
  Moves()
      : model_(testing_support::LoadTestModel(
            testing_support::SourcePath(std::string("testdata/models/") + GetParam()), kernels_)),
        requests_(testing_support::DrawRequests(model_, kNumRequests, kSeed)),
        expected_(testing_support::RunRequests(
            *model_.model, testing_support::TestOptions(model_.config, kernels_), requests_)) {}

  runtime::EngineOptions Options(const MovingLayout& layout) const {
    runtime::EngineOptions options = testing_support::TestOptions(model_.config, kernels_);
    options.layout = parallel::DataParallel(layout.num_ranks);
    const auto experts = static_cast<int32_t>(model_.config.num_experts);
    // One slot more for each rank than a layout without replicas has.
    options.num_slots =
        layout.num_ranks * ((experts + layout.num_ranks - 1) / layout.num_ranks + 1);
    options.moe_max_num_tokens = layout.moe_max_num_tokens;
    options.slot_storage = layout.storage;
    options.verify_slots = layout.verify_slots;
    options.moe_mode = layout.mode;
    options.num_spare_slots = 2;
    options.deadline = std::chrono::seconds(60);  // sixteen ranks on two cores that others use, too
    return options;
  }

  std::string Compare(runtime::Engine& engine) {
    return CompareMoving(engine, model_.model->spec().moe, requests_, expected_, num_iterations_);
  }

  const compute::KernelSet kernels_ = compute::AutoKernelSet();
  TestModel model_;
  std::vector<runtime::Request> requests_;
  std::vector<Outcome> expected_;
  int64_t num_iterations_ = 0;
};

TEST_P(Moves, ChangeNoBitOnThreads) {
  for (int i = 0; i < kLayouts; ++i) {
    const MovingLayout layout{
        .num_ranks = i < 4 ? 8 : 16,
        .storage = i % 2 == 0 ? SlotStorage::kView : SlotStorage::kCopy,
        .moe_max_num_tokens = i % 4 < 2 ? 0 : 3 * (i < 4 ? 8 : 16),
        // Slots that are verified have been waited for: without, copies go on beside the layers.
        .verify_slots = i == 0 || i == 5 || i == 7,
        .mode = i % 4 == 1 || i % 4 == 2 ? moe::MoeMode::kMicrobatch : moe::MoeMode::kBarrier};
    runtime::Engine engine(*model_.model, Options(layout));
    EXPECT_EQ(Compare(engine), "") << "layout " << i;
  }
  EXPECT_GE(num_iterations_, kLayouts * kLeastIterations);
}

TEST_P(Moves, ChangeNoBitOnProcesses) {
  using Case = std::pair<SlotStorage, moe::MoeMode>;
  for (const auto& [storage, mode] : {Case{SlotStorage::kView, moe::MoeMode::kMicrobatch},
                                      Case{SlotStorage::kCopy, moe::MoeMode::kBarrier},
                                      Case{SlotStorage::kCopy, moe::MoeMode::kMicrobatch}}) {
    const runtime::EngineOptions options = Options({.num_ranks = 4,
                                                    .storage = storage,
                                                    .moe_max_num_tokens = 20,
                                                    .verify_slots = storage == SlotStorage::kView,
                                                    .mode = mode});
    const ProcessOutcome outcome = RunEngineProcesses(
        {.options = options,
         .model_of = [&](int) -> const model::Model& { return *model_.model; },
         .lead = [&](runtime::Engine& engine) { EXPECT_EQ(Compare(engine), ""); }});
    EXPECT_EQ(outcome.ranks.error, "");
    EXPECT_TRUE(outcome.killed_ranks.empty());
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Moves, testing::ValuesIn(kModels), [](const auto& model) {
  std::string name = model.param;
  std::ranges::replace(name, '-', '_');
  return name;
});

class MovesOfOneModel : public Moves {};
INSTANTIATE_TEST_SUITE_P(Models, MovesOfOneModel, testing::Values(kModels[0]));

TEST_P(MovesOfOneModel, AreRefusedWhenTheyDoNotFitAndNothingHasHappened) {
  const runtime::EngineOptions options = Options({});
  runtime::Engine engine(*model_.model, options);
  const auto good = testing_support::RandomMoves(model_.model->spec().moe, options, 1);
  rebalance::PlacementChange change = *good(0);
  engine.SetPlacementSource([&](int64_t) { return change; });
  for (const runtime::Request& request : requests_) engine.Submit(request);
  const auto expect_refused = [&](const std::string& reason) {
    try {
      engine.Step();
      ADD_FAILURE() << "taken; wanted: " << reason;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalid);
      EXPECT_THAT(error.what(), testing::HasSubstr(reason));
    }
    change = *good(0);
  };
  change.generation = 0;
  expect_refused("generation 0");
  change.layers[1].moe_layer = 0;
  expect_refused("MoE layer 0 after 0");
  change.layers.back().moe_layer = 40;
  expect_refused("MoE layer 40");
  change.layers[0].placement.slot_expert.pop_back();
  expect_refused("slots");
  change.layers[0].placement.slot_expert.assign(static_cast<size_t>(options.num_slots),
                                                ExpertId(3));
  expect_refused("placement of layer");
  engine.Step();
  change.generation = 1;
  expect_refused("must be above 1");
}

TEST_P(MovesOfOneModel, FindAFlippedByteOfAnExpertAtTheNextChange) {
  const runtime::EngineOptions options = Options({.verify_slots = true});
  runtime::Engine engine(*model_.model, options);
  const auto moves = testing_support::RandomMoves(model_.model->spec().moe, options, 1);
  engine.SetPlacementSource(
      [&](int64_t iteration) { return iteration % 2 == 1 ? moves(iteration) : std::nullopt; });
  for (const runtime::Request& request : requests_) engine.Submit(request);
  engine.Step();
  engine.Step();
  const auto bytes = model_.model->Experts(1, 0)[5].bytes();
  bytes[bytes.size() / 3] ^= std::byte{1};
  engine.Step();
  try {
    engine.Step();
    FAIL() << "not found";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(),
                testing::ContainsRegex("rank [0-7]: slot [0-9]+ of MoE layer 1 .*expert 5"));
  }
}

// Milliseconds on a clock that all processes share.
uint32_t Now() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<uint32_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

// A rank is killed while experts are on their way to all slots of all ranks, slowly. The deadline
// of a minute has no part in how soon the others end: that the kernel tells them is what takes less
// than five seconds.
TEST_P(MovesOfOneModel, EndAndLeaveNothingWhenARankIsKilled) {
  for (const int victim : {0, 2}) {
    runtime::EngineOptions options = Options({.num_ranks = 4, .storage = SlotStorage::kCopy});
    options.migration_bytes_per_second = 1 << 20;
    const SharedCounter killed_at;
    const auto die = [&](const model::Batch&) {
      *killed_at = Now();
      ::kill(::getpid(), SIGKILL);
    };
    const testing_support::FaultyModel fatal(*model_.model, {.iteration = 3, .before = die});
    const auto model_of = [&](int rank) -> const model::Model& {
      return rank == victim ? static_cast<const model::Model&>(fatal) : *model_.model;
    };
    const std::string job = FreshJobName();
    const ProcessOutcome outcome =
        RunEngineProcesses({.options = options,
                            .job = job,
                            .model_of = model_of,
                            .lead = [&](runtime::Engine& engine) { Compare(engine); }});
    EXPECT_THAT(outcome.ranks.error,
                testing::HasSubstr(fmt::format("rank {}: it is dead", victim)));
    EXPECT_EQ(outcome.killed_ranks, std::vector<int>{victim});
    EXPECT_LT(Now() - killed_at->load(), 5000U);
    for (const auto& file : std::filesystem::directory_iterator("/dev/shm"))
      EXPECT_EQ(file.path().filename().string().find(job), std::string::npos) << file.path();
  }
}

}  // namespace
}  // namespace wideload
