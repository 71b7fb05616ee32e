// What a placement makes of token-level routing: how many ranks a token's rows go to, how many rows
// leave its rank or node, and which experts are chosen together. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "eplb/placement/placement.h"
#include "statistics/load_files.h"

namespace wideload::statistics {

// Two experts that tokens choose together.
struct ExpertPair {
  int32_t first = 0;
  int32_t second = 0;
  int64_t tokens = 0;  // that chose both
  double lift = 0;     // over what their loads alone would make it
};

// Means over the tokens of one layer.
struct CrossingFigures {
  double ranks_per_token = 0;     // distinct ranks that a token's rows go to
  double rows_off_rank = 0;       // share of these copies that leave the token's rank
  double rows_off_node = 0;       // share that leaves its node
  double pairs_on_one_rank = 0;   // share of the pairs of experts of a token that share a rank
  std::vector<ExpertPair> pairs;  // most often chosen together, of at least twice the expected
};

// One layer. Tokens are dealt to ranks in equal contiguous shares of each task; a token goes once
// to each rank that computes some of its experts, to its own rank's slot of an expert where there
// is one, else to the slot of its turn (tokens take an expert's slots in turn). `num_nodes` divides
// the ranks. At most `num_pairs` pairs.
CrossingFigures CrossingOf(const eplb::RoutingTrace& routing, int32_t layer,
                           const eplb::Placement& placement, int32_t num_nodes, size_t num_pairs);

}  // namespace wideload::statistics
