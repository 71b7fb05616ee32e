// A made-up MoE layer that runs over an exchange, and the same without one: every token's result is
// a function of a seed, so that any layout can be compared bit for bit.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "comm/local/rank_threads.h"
#include "eplb/placement/placement.h"
#include "exchange/exchange.h"
#include "exchange/local_fabric.h"
#include "tests/ranks/load_rows.h"

namespace wideload::exchange {

enum class Routing { kSpread, kAllToOneRank, kNoToken, kMasked };
enum class Share { kEven, kUneven, kOnlyLastRank };  // tokens over ranks

struct Load {
  int num_ranks = 1;
  int num_buffers = 2;
  int64_t max_rows = 16;
  int num_experts = 20;
  int num_slots = 0;  // 0: the smallest valid
  bool is_random_placement = false;
  int top_k = 5;
  int64_t hidden = 24;
  int64_t num_tokens = 77;  // per layer, all ranks together
  int num_layers = 4;
  Routing routing = Routing::kSpread;
  Share share = Share::kUneven;
  bool is_skewed = false;  // ranks yield at random between calls
  bool is_pipelined = true;
  bool is_free = false;  // rounds of ranks do not go in step
  int threads_per_rank = 1;
  uint32_t first_epoch = 0;
  uint64_t seed = 1;

  std::string Name() const;
};

// Loads that every medium must carry. 1 to 3 buffers, chunks of 5 and 64 tokens, out of step, too:
std::vector<Load> LoadsOfAnyBuffersAndChunkSize(int num_ranks);
// Rounds of megabytes, rows that end within a line, some tokens without an expert.
Load LargeMaskedLoad(int num_ranks, int num_layers);
// Every field drawn at random, of max_ranks ranks or fewer.
Load RandomLoad(std::mt19937_64& random, int max_ranks);

ExchangeShape ShapeOf(const Load& load);
eplb::Placement PlacementOf(const Load& load);

// Results [num_layers][num_tokens][hidden], computed in one loop.
std::vector<float> Oracle(const Load& load);

struct LoadResult {
  std::vector<float> values;        // as Oracle
  std::vector<int64_t> num_rounds;  // [R]
  comm::RankOutcome outcome;
};
// Whether the values are those of Oracle, bit for bit.
bool IsOracle(const Load& load, const LoadResult& result);
// Called by each rank before each Exchange call; for faults and checks.
using Probe = std::function<void(int rank, const char* call, int64_t round)>;

// The part of one rank: all layers. `values` is shared; ranks write their own tokens. `rows`: where
// the exchange has them, null for memory of the host.
void RunRank(const Load& load, Exchange& exchange, comm::Communicator& group,
             std::vector<float>& values, const Probe& probe = {}, LoadRows* rows = nullptr);
// All ranks as threads.
LoadResult RunOverExchange(const Load& load, const Probe& probe = {},
                           std::chrono::milliseconds deadline = std::chrono::seconds(60));

}  // namespace wideload::exchange
