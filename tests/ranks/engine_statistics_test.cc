// Expert statistics that an engine recorded, written and read back, are the engine's own counts:
// per expert whatever the slots, in the iterations asked for, also when the run ends early.
#include <gtest/gtest.h>

#include <numeric>
#include <optional>

#include "eplb/placement/placement.h"
#include "runtime/engine.h"
#include "support/random_model.h"
#include "support/random_moves.h"
#include "support/test_data.h"
#include "support/test_engine.h"

namespace wideload {
namespace {

using statistics::ExpertStatistics;
using statistics::IterationRange;

constexpr int32_t kRanks = 4;
constexpr int32_t kExperts = 16;
constexpr int64_t kTopK = 4;

// What the engine says of its iterations.
struct EngineCounts {
  std::vector<std::vector<int64_t>> tokens;  // [iterations][ranks] positions computed
  std::vector<std::vector<int64_t>> rows;    // [iterations][layers] over all ranks
};

struct RecordedRun {
  EngineCounts engine;
  ExpertStatistics written;
};

class EngineStatistics : public testing::Test {
 protected:
  // Runs `max_iterations` at most, on 32 slots for 16 experts. `moving`: every layer is placed anew
  // at every iteration, in slots of this kind.
  RecordedRun Run(const IterationRange& range, int64_t max_iterations,
                  std::optional<moe::SlotStorage> moving = {}) {
    const compute::KernelSet kernels = compute::AutoKernelSet();
    const testing_support::TestModel model = testing_support::LoadTestModel(
        testing_support::SourcePath("testdata/models/tiny-qwen3-moe"), kernels);
    const moe::MoeShape& moe = model.model->spec().moe;
    runtime::EngineOptions options = testing_support::TestOptions(model.config, kernels);
    options.num_ranks = kRanks;
    options.num_slots = 2 * kExperts;
    options.max_num_tokens = 16;
    options.moe_max_num_tokens = 12;  // several chunks per layer
    for (uint64_t layer = 0; layer < moe.layers.size(); ++layer)
      options.placements.push_back(
          eplb::RandomPlacement(kExperts, options.num_slots, kRanks, 7 + layer));
    if (moving) options.slot_storage = *moving;
    statistics::Recorder recorder({.num_ranks = kRanks,
                                   .layers = moe.layers,
                                   .num_experts = kExperts,
                                   .experts_per_token = kTopK,
                                   .range = range});
    RecordedRun run;
    {
      runtime::Engine engine(*model.model, options);
      engine.SetRecorder(&recorder);
      if (moving) engine.SetPlacementSource(testing_support::RandomMoves(moe, options, 3));
      for (int i = 0; i < 9; ++i) {
        runtime::Request request;
        request.prompt.assign(static_cast<size_t>(5 + 7 * i), 3 + i);
        request.max_tokens = 6;
        engine.Submit(request);
      }
      while (!engine.idle() && engine.last_iteration().iteration + 1 < max_iterations) {
        engine.Step();
        Note(engine, run.engine);
      }
    }
    const std::string folder = testing_support::TemporaryFolder("engine_statistics") + "/written";
    recorder.Write(folder, statistics::ExistingFolder::kReplace);
    run.written = statistics::ReadStatistics(folder, {.sum_ranks = false});
    return run;
  }

  static void Note(const runtime::Engine& engine, EngineCounts& counts) {
    std::vector<int64_t>& tokens = counts.tokens.emplace_back();
    std::vector<int64_t>& rows = counts.rows.emplace_back();
    for (int32_t r = 0; r < kRanks; ++r) {
      const runtime::RankIteration& rank = engine.last_iteration().ranks[static_cast<size_t>(r)];
      tokens.push_back(rank.num_prompt_tokens + rank.num_generated_tokens);
      const std::span<const int64_t> computed = engine.ComputedRows(r);
      rows.resize(computed.size());
      for (size_t layer = 0; layer < computed.size(); ++layer) rows[layer] += computed[layer];
    }
  }

  // Every row of the folder against the engine's counts of its iteration.
  static void ExpectSameCounts(const RecordedRun& run) {
    const ExpertStatistics& written = run.written;
    ASSERT_EQ(written.num_ranks, kRanks);
    ASSERT_EQ(written.num_experts, kExperts);
    for (int64_t i = 0; i < written.num_iterations; ++i) {
      const auto iteration = static_cast<size_t>(written.iter_start + i);
      for (size_t layer = 0; layer < written.num_layers(); ++layer) {
        int64_t total = 0;
        for (int32_t r = 0; r < kRanks; ++r) {
          const auto row = written.Row(i, layer, r);
          const int64_t sum = std::accumulate(row.begin(), row.end(), int64_t{0});
          EXPECT_EQ(sum, kTopK * run.engine.tokens[iteration][static_cast<size_t>(r)])
              << "iteration " << iteration << ", layer " << layer << ", rank " << r;
          total += sum;
        }
        EXPECT_EQ(total, run.engine.rows[iteration][layer])
            << "iteration " << iteration << ", layer " << layer;
      }
    }
  }
};

TEST_F(EngineStatistics, ReadBackAreTheRoutedTokensOfEveryIterationLayerAndRank) {
  const RecordedRun run = Run({}, 1000);
  EXPECT_EQ(run.written.iter_start, 0);
  EXPECT_EQ(run.written.num_iterations, std::ssize(run.engine.tokens));
  EXPECT_GT(run.written.num_iterations, 6);
  ExpectSameCounts(run);
}

// Statistics name experts, not slots, so that a placement can be planned from a run that was
// balanced online.
TEST_F(EngineStatistics, AreTheSameWhileExpertsMove) {
  const RecordedRun still = Run({}, 1000);
  for (const moe::SlotStorage storage : {moe::SlotStorage::kView, moe::SlotStorage::kCopy}) {
    const RecordedRun moving = Run({}, 1000, storage);
    EXPECT_TRUE(moving.written == still.written);
    ExpectSameCounts(moving);
  }
}

TEST_F(EngineStatistics, HoldTheIterationsOfTheWindowAlone) {
  const RecordedRun run = Run({.start = 2, .stop = 5}, 1000);
  EXPECT_EQ(run.written.iter_start, 2);
  EXPECT_EQ(run.written.num_iterations, 3);
  ExpectSameCounts(run);
}

TEST_F(EngineStatistics, EndWhereARunEndsBeforeItsWindowDoes) {
  const RecordedRun run = Run({.start = 2, .stop = 500}, 6);
  EXPECT_EQ(run.written.iter_start, 2);
  EXPECT_EQ(run.written.num_iterations, 4);
  ExpectSameCounts(run);
}

}  // namespace
}  // namespace wideload
