// Which ranks may compute which expert, as the splitter sees a placement: experts held by one rank
// only are a fixed load of that rank; every other ("shared") expert is an edge to each of its
// ranks. Built once per placement; immutable afterwards, so it may be read by several threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "eplb/placement/placement.h"

namespace wideload::eplb {

struct SplitGraph {
  int32_t num_experts = 0;
  int32_t num_ranks = 0;
  std::vector<int32_t> single_rank;  // [num_experts] its only rank; -1: shared by several ranks
  std::vector<int32_t> single_slot;  // [num_experts] its first slot on that rank; -1: shared

  // Shared experts and their edges, ranks ascending: edges [edge_begin[i], edge_begin[i + 1]).
  std::vector<int32_t> shared_expert;  // [num_shared] expert id
  std::vector<int32_t> shared_index;   // [num_experts] index into shared_expert; -1: single
  std::vector<int32_t> edge_begin;     // [num_shared + 1]
  std::vector<int32_t> edge_rank;      // [num_edges]
  std::vector<int32_t> edge_slot;      // [num_edges] the expert's first slot on that rank
  std::vector<int32_t> edge_shared;    // [num_edges] index into shared_expert

  std::vector<int32_t> rank_edge_begin;  // [num_ranks + 1] into rank_edges
  std::vector<int32_t> rank_edges;       // [num_edges] edge ids of each rank, ascending

  // Ranks joined by shared experts; no split moves load from one component to another.
  int32_t num_components = 0;
  std::vector<int32_t> component;        // [num_ranks]
  std::vector<int32_t> component_ranks;  // [num_components] number of ranks

  // Leaves are ranks with one edge; taking them off again and again leaves the core, which is empty
  // for a forest. Shared experts outside the core, every one after those below it; all their ranks
  // but the one of tree_parent_edge were taken off before.
  std::vector<int32_t> tree_order;
  std::vector<int32_t> tree_parent_edge;  // [num_shared]; -1 in the core
  std::vector<int32_t> core_order;        // shared experts in the core, ascending
  std::vector<uint8_t> edge_in_core;      // [num_edges] neither end was taken off

  bool is_forest() const { return core_order.empty(); }
  int32_t num_shared() const { return static_cast<int32_t>(shared_expert.size()); }
  int32_t num_edges() const { return static_cast<int32_t>(edge_rank.size()); }
};

// A rank that holds an expert more than once counts as one; its first slot stands for all of them.
// rank_alive [num_ranks] (empty: all): edges to dead ranks are left out; an expert without a live
// rank has neither a single rank nor an edge.
SplitGraph MakeSplitGraph(const Placement& placement, const std::vector<bool>& rank_alive = {});

}  // namespace wideload::eplb
