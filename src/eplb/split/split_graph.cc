#include "eplb/split/split_graph.h"

#include <algorithm>
#include <numeric>

#include "eplb/placement/index.h"

namespace wideload::eplb {
namespace {

// Appends the distinct live ranks of one expert as edges or as its single rank.
void AddExpert(const Placement& placement, const RoutingTable& table, int32_t expert,
               const std::vector<bool>& rank_alive, SplitGraph& graph) {
  const int32_t first_edge = graph.num_edges();
  for (const SlotId slot : table.SlotsOf(ExpertId(expert))) {
    const int32_t rank = placement.RankOf(slot).value;
    if (!rank_alive.empty() && !rank_alive[Index(rank)]) continue;
    if (graph.num_edges() > first_edge && graph.edge_rank.back() == rank) continue;
    graph.edge_rank.push_back(rank);
    graph.edge_slot.push_back(slot.value);
    graph.edge_shared.push_back(graph.num_shared());
  }
  if (graph.num_edges() - first_edge >= 2) {
    graph.shared_index[Index(expert)] = graph.num_shared();
    graph.shared_expert.push_back(expert);
    graph.edge_begin.push_back(graph.num_edges());
    return;
  }
  if (graph.num_edges() > first_edge) {
    graph.single_rank[Index(expert)] = graph.edge_rank.back();
    graph.single_slot[Index(expert)] = graph.edge_slot.back();
    graph.edge_rank.pop_back();
    graph.edge_slot.pop_back();
    graph.edge_shared.pop_back();
  }
}

void IndexEdgesByRank(SplitGraph& graph) {
  graph.rank_edge_begin.assign(Index(graph.num_ranks) + 1, 0);
  for (const int32_t rank : graph.edge_rank) ++graph.rank_edge_begin[Index(rank) + 1];
  std::partial_sum(graph.rank_edge_begin.begin(), graph.rank_edge_begin.end(),
                   graph.rank_edge_begin.begin());
  std::vector<int32_t> next(graph.rank_edge_begin.begin(), graph.rank_edge_begin.end() - 1);
  graph.rank_edges.resize(graph.edge_rank.size());
  for (int32_t edge = 0; edge < graph.num_edges(); ++edge)
    graph.rank_edges[Index(next[Index(graph.edge_rank[Index(edge)])]++)] = edge;
}

// Numbers the component of `root`, breadth first.
void NumberComponent(int32_t root, SplitGraph& graph, std::vector<bool>& seen_shared) {
  std::vector<int32_t> queue = {root};
  graph.component[Index(root)] = graph.num_components;
  for (size_t head = 0; head < queue.size(); ++head) {
    const int32_t rank = queue[head];
    for (int32_t i = graph.rank_edge_begin[Index(rank)]; i < graph.rank_edge_begin[Index(rank) + 1];
         ++i) {
      const int32_t shared = graph.edge_shared[Index(graph.rank_edges[Index(i)])];
      if (seen_shared[Index(shared)]) continue;
      seen_shared[Index(shared)] = true;
      for (int32_t e = graph.edge_begin[Index(shared)]; e < graph.edge_begin[Index(shared) + 1];
           ++e) {
        const int32_t next = graph.edge_rank[Index(e)];
        if (graph.component[Index(next)] >= 0) continue;
        graph.component[Index(next)] = graph.num_components;
        queue.push_back(next);
      }
    }
  }
  graph.component_ranks.push_back(static_cast<int32_t>(queue.size()));
  ++graph.num_components;
}

// The first edge of a list that is still in the core.
int32_t CoreEdge(const SplitGraph& graph, const int32_t* begin, const int32_t* end) {
  return *std::find_if(begin, end,
                       [&graph](int32_t e) { return graph.edge_in_core[Index(e)] != 0; });
}

// Takes off leaves until none is left.
void PeelLeaves(SplitGraph& graph) {
  graph.edge_in_core.assign(graph.edge_rank.size(), 1);
  std::vector<int32_t> rank_degree(Index(graph.num_ranks), 0);
  std::vector<int32_t> shared_degree(Index(graph.num_shared()), 0);
  for (int32_t e = 0; e < graph.num_edges(); ++e) {
    ++rank_degree[Index(graph.edge_rank[Index(e)])];
    ++shared_degree[Index(graph.edge_shared[Index(e)])];
  }
  std::vector<int32_t> leaves;
  for (int32_t r = 0; r < graph.num_ranks; ++r)
    if (rank_degree[Index(r)] == 1) leaves.push_back(r);
  std::vector<int32_t> edges;
  for (size_t head = 0; head < leaves.size(); ++head) {
    const size_t rank = Index(leaves[head]);
    if (rank_degree[rank] != 1) continue;  // its expert was taken off from the other side
    const int32_t edge = CoreEdge(graph, &graph.rank_edges[Index(graph.rank_edge_begin[rank])],
                                  graph.rank_edges.data() + graph.rank_edge_begin[rank + 1]);
    const int32_t shared = graph.edge_shared[Index(edge)];
    graph.edge_in_core[Index(edge)] = 0;
    --rank_degree[rank];
    if (--shared_degree[Index(shared)] > 1) continue;
    edges.resize(Index(graph.edge_begin[Index(shared) + 1] - graph.edge_begin[Index(shared)]));
    std::iota(edges.begin(), edges.end(), graph.edge_begin[Index(shared)]);
    const int32_t parent = CoreEdge(graph, edges.data(), edges.data() + edges.size());
    graph.tree_order.push_back(shared);
    graph.tree_parent_edge[Index(shared)] = parent;
    graph.edge_in_core[Index(parent)] = 0;
    const int32_t above = graph.edge_rank[Index(parent)];
    if (--rank_degree[Index(above)] == 1) leaves.push_back(above);
  }
  for (int32_t i = 0; i < graph.num_shared(); ++i)
    if (graph.tree_parent_edge[Index(i)] < 0) graph.core_order.push_back(i);
}

}  // namespace

SplitGraph MakeSplitGraph(const Placement& placement, const std::vector<bool>& rank_alive) {
  SplitGraph graph;
  graph.num_experts = placement.num_experts;
  graph.num_ranks = placement.num_ranks;
  graph.single_rank.assign(Index(graph.num_experts), -1);
  graph.single_slot.assign(Index(graph.num_experts), -1);
  graph.shared_index.assign(Index(graph.num_experts), -1);
  graph.edge_begin.push_back(0);
  const RoutingTable table = MakeRoutingTable(placement);
  for (int32_t e = 0; e < graph.num_experts; ++e) AddExpert(placement, table, e, rank_alive, graph);
  IndexEdgesByRank(graph);
  graph.component.assign(Index(graph.num_ranks), -1);
  std::vector<bool> seen_shared(Index(graph.num_shared()), false);
  for (int32_t rank = 0; rank < graph.num_ranks; ++rank)
    if (graph.component[Index(rank)] < 0) NumberComponent(rank, graph, seen_shared);
  graph.tree_parent_edge.assign(Index(graph.num_shared()), -1);
  PeelLeaves(graph);
  return graph;
}

}  // namespace wideload::eplb
