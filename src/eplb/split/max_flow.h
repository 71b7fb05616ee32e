// A plain maximum flow (shortest augmenting paths) on a small directed graph with whole capacities:
// the oracle that the split's optimality is proved with. Pure; allocates; one object per thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace wideload::eplb {

class MaxFlow {
 public:
  // A graph of nodes 0 to num_nodes - 1 without arcs.
  explicit MaxFlow(int32_t num_nodes) : arcs_of_(static_cast<size_t>(num_nodes)) {}

  // Adds an arc; capacity >= 0. Returns its id.
  int32_t AddArc(int32_t from, int32_t to, int64_t capacity);
  // The largest flow from source to sink.
  int64_t Solve(int32_t source, int32_t sink);
  // After Solve: whether `node` is on the source's side of the minimum cut.
  bool OnSourceSide(int32_t node) const {
    return parent_arc_[static_cast<size_t>(node)] != kUnseen;
  }

 private:
  static constexpr int32_t kUnseen = -2;
  struct Arc {
    int32_t to;
    int64_t left;
  };
  bool FindPath(int32_t source, int32_t sink);

  std::vector<Arc> arcs_;  // arc i and its reverse i ^ 1
  std::vector<std::vector<int32_t>> arcs_of_;
  std::vector<int32_t> parent_arc_;
};

}  // namespace wideload::eplb
