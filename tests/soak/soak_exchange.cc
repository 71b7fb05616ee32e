// Runs many rounds of an exchange under skew and compares every result with one loop.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>

#include "tests/ranks/exchange_load.h"

int main(int argc, char** argv) {
  using namespace wideload::exchange;
  int64_t min_rounds = 100'000;
  int num_ranks = 4;
  uint64_t seed = 1;
  CLI::App app("soak of the exchange: rounds under skew, every result compared");
  app.add_option("--rounds", min_rounds, "at least so many rounds");
  app.add_option("--ranks", num_ranks, "ranks, as threads")->check(CLI::Range(1, 64));
  app.add_option("--seed", seed, "first seed");
  CLI11_PARSE(app, argc, argv);
  int64_t rounds = 0;
  while (rounds < min_rounds) {
    Load load;
    load.num_ranks = num_ranks;
    load.num_buffers = 1 + static_cast<int>(seed % 3);
    load.max_rows = 1 + static_cast<int64_t>(seed % 7);
    load.num_tokens = 40;
    load.num_layers = 200;
    load.num_slots = 20 + static_cast<int>(seed % 21);
    load.is_random_placement = seed % 2 == 0;
    load.routing = seed % 5 == 0 ? Routing::kMasked : Routing::kSpread;
    load.is_skewed = true;
    load.first_epoch = static_cast<uint32_t>(seed * 0x9E3779B9U);
    load.seed = seed;
    const LoadResult result = RunOverExchange(load);
    if (!result.outcome.ok()) {
      std::printf("FAILED: %s: %s\n", load.Name().c_str(), result.outcome.error.c_str());
      return 1;
    }
    const std::vector<float> expected = Oracle(load);
    if (std::memcmp(expected.data(), result.values.data(), expected.size() * sizeof(float)) != 0) {
      std::printf("FAILED: %s: results differ\n", load.Name().c_str());
      return 1;
    }
    rounds += result.num_rounds[0];
    ++seed;
    std::printf("%lld rounds\n", static_cast<long long>(rounds));
    std::fflush(stdout);
  }
  std::printf("all results equal\n");
  return 0;
}
