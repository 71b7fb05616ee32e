// The table of balancing policies: a name, what the policy looks at, and a plain function from what
// is known of one layer to a placement. To add one, write the function and add a row in policy.cc;
// programs learn from the row what they may offer and what they must refuse. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eplb/placement/batch_loads.h"
#include "eplb/placement/node_rule.h"
#include "eplb/placement/placement.h"

namespace wideload::eplb {

// What a policy may look at, one layer.
struct PolicyInput {
  const BatchLoads& loads;
  int32_t num_slots = 0;
  int32_t num_ranks = 1;
  NodeSizes nodes = {};
  int32_t max_cross_slots = -1;  // see PlanOptions; only of policies that bound them
  uint64_t seed = 0;
  // What is in the slots now, if anything: ranks are renamed within their node so that few slots
  // change, whatever the policy.
  const Placement* current = nullptr;
  double fetch_price = 0;  // see PlanOptions; only of policies that weigh fetches, with a `current`
};

struct Policy {
  std::string_view name;
  std::string_view summary;                     // one line for --help
  Placement (*plan)(const PolicyInput& input);  // call PlanLayer instead

  bool looks_at_nodes = false;  // at num_nodes and num_groups; the others ignore them
  // Plans as on one node, without a word, unless num_nodes divides num_groups.
  bool needs_groups_on_nodes = false;
  bool bounds_cross_slots = false;  // at max_cross_slots
  bool weighs_fetches = false;      // at fetch_price
  bool searches = false;            // at seed, and at the batches one by one; takes milliseconds
  bool balances = true;             // looks at loads at all
  bool is_for_even_split = false;   // searches for that split: what repairs its plans should, too
  // Slot for slot what another program plans: whoever wants that must not pass `current`.
  bool is_of_other_program = false;
  // A layer without load goes to `plan` as it is: that other program has a rule of its own.
  bool plans_without_load = false;
  bool is_compared = true;  // among those that are compared unless others are asked for
};

// All rows of the table, in the order that help texts list them in.
std::span<const Policy> Policies();

// Errors: kInvalid with the names there are.
const Policy& FindPolicy(std::string_view name);

// TensorRT-LLM's greedy policy: what plans are made by unless another is asked for, and what the
// gain of others is told against.
const Policy& GreedyPolicy();

// The search for engines that split evenly: what is offered to their users.
const Policy& EvenPolicy();

// Names of the policies with this property, or of all, in the order of the table.
std::vector<std::string> PolicyNames(bool Policy::*property = nullptr);

// The policy's placement of one layer. A layer without load is planned as for EqualLoads.
// Errors: kInvalid for sizes that the policy refuses.
Placement PlanLayer(const Policy& policy, const PolicyInput& input);

}  // namespace wideload::eplb
