#include "support/random_moves.h"

#include <fmt/format.h>

namespace wideload::testing_support {

runtime::Engine::PlacementSource RandomMoves(const moe::MoeShape& shape,
                                             const runtime::EngineOptions& options, uint64_t seed) {
  const auto num_experts = static_cast<int32_t>(shape.num_experts);
  const int32_t num_slots = options.num_slots > 0 ? options.num_slots : num_experts;
  return
      [=, num_ranks = options.layout.moe_ep, num_layers = shape.num_layers()](int64_t iteration) {
        rebalance::PlacementChange change{.generation = iteration + 1, .layers = {}};
        for (int32_t layer = 0; layer < num_layers; ++layer)
          change.layers.push_back({.moe_layer = layer,
                                   .placement = eplb::RandomPlacement(
                                       num_experts, num_slots, num_ranks,
                                       (seed * 1'000'003 + static_cast<uint64_t>(iteration)) * 97 +
                                           static_cast<uint64_t>(layer))});
        return std::optional(std::move(change));
      };
}

std::string CompareMoving(runtime::Engine& engine, const moe::MoeShape& shape,
                          const std::vector<runtime::Request>& requests,
                          const std::vector<Outcome>& expected, int64_t& num_iterations) {
  engine.SetPlacementSource(RandomMoves(shape, engine.options(), requests.size()));
  const std::vector<Outcome> outcomes = RunRequests(engine, requests);
  num_iterations += engine.last_iteration().iteration + 1;
  for (size_t i = 0; i < requests.size(); ++i) {
    const Outcome& got = outcomes[i];
    if (got == expected[i]) continue;
    return fmt::format("request {} differs in {}{}", i,
                       got.tokens != expected[i].tokens ? "tokens" : "logits or end", got.error);
  }
  return "";
}

}  // namespace wideload::testing_support
