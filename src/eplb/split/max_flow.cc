#include "eplb/split/max_flow.h"

#include <algorithm>
#include <limits>

namespace wideload::eplb {

int32_t MaxFlow::AddArc(int32_t from, int32_t to, int64_t capacity) {
  const auto id = static_cast<int32_t>(arcs_.size());
  arcs_.push_back({to, capacity});
  arcs_.push_back({from, 0});
  arcs_of_[static_cast<size_t>(from)].push_back(id);
  arcs_of_[static_cast<size_t>(to)].push_back(id + 1);
  return id;
}

bool MaxFlow::FindPath(int32_t source, int32_t sink) {
  parent_arc_.assign(arcs_of_.size(), kUnseen);
  parent_arc_[static_cast<size_t>(source)] = -1;
  std::vector<int32_t> queue = {source};
  for (size_t head = 0; head < queue.size(); ++head) {
    for (const int32_t arc : arcs_of_[static_cast<size_t>(queue[head])]) {
      const auto [to, left] = arcs_[static_cast<size_t>(arc)];
      if (left <= 0 || parent_arc_[static_cast<size_t>(to)] != kUnseen) continue;
      parent_arc_[static_cast<size_t>(to)] = arc;
      queue.push_back(to);
    }
  }
  return parent_arc_[static_cast<size_t>(sink)] != kUnseen;
}

int64_t MaxFlow::Solve(int32_t source, int32_t sink) {
  int64_t flow = 0;
  const auto previous = [this](int32_t arc) { return arcs_[static_cast<size_t>(arc ^ 1)].to; };
  while (FindPath(source, sink)) {
    int64_t bottleneck = std::numeric_limits<int64_t>::max();
    for (int32_t node = sink; node != source;) {
      const int32_t arc = parent_arc_[static_cast<size_t>(node)];
      bottleneck = std::min(bottleneck, arcs_[static_cast<size_t>(arc)].left);
      node = previous(arc);
    }
    for (int32_t node = sink; node != source;) {
      const int32_t arc = parent_arc_[static_cast<size_t>(node)];
      arcs_[static_cast<size_t>(arc)].left -= bottleneck;
      arcs_[static_cast<size_t>(arc ^ 1)].left += bottleneck;
      node = previous(arc);
    }
    flow += bottleneck;
  }
  return flow;
}

}  // namespace wideload::eplb
