#include "runtime/placement_state.h"

#include <gtest/gtest.h>

#include "exchange/layout.h"

namespace wideload::runtime {
namespace {

int64_t ExchangeBytes(const EngineOptions& options) {
  const moe::MoeShape shape{
      .hidden = 100, .num_experts = 16, .router = {.top_k = 4}, .layers = {0}};
  return exchange::SegmentBytes(moe::MakeExchangeShape(
      shape, MakeMoeLayout(shape, options), compute::PrecisionOf(compute::KernelSet::kReference)));
}

// B buffers of what R ranks send, C rows with K slots each and the token, and of C K results; rows
// of 400 bytes take 512. Beside them flags and counts, which no number of tokens changes.
TEST(ExchangeMemory, IsBoundedByTheChunkWhateverAnIterationComputes) {
  for (const int64_t chunk : {1, 32, 128}) {
    EngineOptions options{.layout = parallel::DataParallel(8), .moe_max_num_tokens = 8 * chunk};
    options.max_num_tokens = 1024;
    const int64_t bytes = ExchangeBytes(options);
    const int64_t rows = 8 * (chunk * (512 + 5 * 4) + 2 * 128) + chunk * 4 * 512;
    constexpr int64_t kFlagsAndCounts = 64 << 10;
    EXPECT_LE(bytes, moe::kOverlappedChunks * rows + kFlagsAndCounts) << chunk;
    options.max_num_tokens = 1 << 20;
    EXPECT_EQ(ExchangeBytes(options), bytes) << chunk;
  }
}

TEST(ExchangeMemory, HasOneBufferWhereNothingIsCut) {
  EngineOptions options{.layout = parallel::DataParallel(8)};
  options.max_num_tokens = 1024;
  const int64_t whole = ExchangeBytes(options);
  options.moe_max_num_tokens = 8 * 1023;
  EXPECT_GT(ExchangeBytes(options), 2.5 * static_cast<double>(whole));
}

}  // namespace
}  // namespace wideload::runtime
