// Placements that are drawn anew at every iteration, while requests run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "support/test_engine.h"

namespace wideload::testing_support {

// The placements of all layers for each iteration, drawn from a seed.
runtime::Engine::PlacementSource RandomMoves(const moe::MoeShape& shape,
                                             const runtime::EngineOptions& options, uint64_t seed);

// Runs the requests on the engine (made with `options`) while every layer's placement changes at
// every iteration, and compares with `expected`, the outcomes of one rank without changes, by
// bytes. Returns what differs, or "". num_iterations: how many there were are added.
std::string CompareMoving(runtime::Engine& engine, const moe::MoeShape& shape,
                          const std::vector<runtime::Request>& requests,
                          const std::vector<Outcome>& expected, int64_t& num_iterations);

}  // namespace wideload::testing_support
