// The table of balancing policies: a name, and a plain function from what is known of one layer to
// a placement. To add one, write the function and add a row in policy.cc. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "eplb/placement/placement.h"

namespace wideload::eplb {

// What a policy may look at, one layer.
struct PolicyInput {
  std::span<const double> loads;  // [num_experts] tokens, finite and >= 0
  // [num_scenarios][num_experts] counts of recorded iterations; empty: only `loads` is known
  std::span<const std::vector<double>> scenarios = {};
  int32_t num_slots = 0;
  int32_t num_ranks = 1;
  int32_t num_nodes = 1;         // ranks are spread evenly, node after node
  int32_t num_groups = 1;        // expert groups of the router
  int32_t max_cross_slots = -1;  // see PlanOptions; only of policies that bound them
  uint64_t seed = 0;
  const Placement* previous = nullptr;  // what is in the slots now, if anything
  double fetch_price = 0;               // see PlanOptions; only of policies that weigh fetches
};

struct Policy {
  std::string_view name;
  std::string_view summary;  // one line for --help
  bool looks_at_nodes;       // at num_nodes and num_groups; the others ignore them
  bool bounds_cross_slots;   // at max_cross_slots
  bool weighs_fetches;       // looks at fetch_price
  Placement (*plan)(const PolicyInput& input);
};

std::span<const Policy> Policies();

// Errors: kInvalid with the names there are.
const Policy& FindPolicy(std::string_view name);

}  // namespace wideload::eplb
