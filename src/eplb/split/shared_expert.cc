#include "eplb/split/shared_expert.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

#include "base/error.h"

namespace wideload::eplb {
namespace {

// Rows each rank can take until it is as busy as `level`.
std::vector<int64_t> RoomBelow(std::span<const double> busy, double level, double cost) {
  std::vector<int64_t> room;
  for (const double now : busy)
    room.push_back(static_cast<int64_t>(std::floor(std::max(0.0, (level - now) / cost + 1e-9))));
  return room;
}

// The lowest level, up to rounding, at which all rows find room.
double LowestLevel(std::span<const double> busy, int64_t rows, double cost) {
  double low = 0;
  double high = *std::max_element(busy.begin(), busy.end()) + cost * static_cast<double>(rows);
  for (int step = 0; step < 80 && high - low > 1e-7; ++step) {
    const double middle = (low + high) / 2;
    const std::vector<int64_t> room = RoomBelow(busy, middle, cost);
    (std::accumulate(room.begin(), room.end(), int64_t{0}) >= rows ? high : low) = middle;
  }
  return high;
}

}  // namespace

std::vector<int32_t> SplitSharedExpert(std::span<const int64_t> routed,
                                       std::span<const int32_t> tokens, double cost) {
  if (routed.size() != tokens.size() || routed.empty())
    Throw(ErrorKind::kInvalid, "shared expert: {} ranks' routed rows and {} ranks' tokens",
          routed.size(), tokens.size());
  if (!(cost > 0))
    Throw(ErrorKind::kInvalid, "shared expert: cost is {}; it must be above 0", cost);
  int64_t total = 0;
  for (size_t r = 0; r < routed.size(); ++r) {
    if (routed[r] < 0 || tokens[r] < 0)
      Throw(ErrorKind::kInvalid, "shared expert: rank {} has {} routed rows and {} tokens", r,
            routed[r], tokens[r]);
    total += tokens[r];
  }
  const size_t ranks = routed.size();
  std::vector<double> busy(routed.begin(), routed.end());
  // At home stays what does not make its rank the busiest of all; the rest fills the least busy.
  const double busiest =
      std::max(LowestLevel(busy, total, cost), *std::max_element(busy.begin(), busy.end()));
  std::vector<int64_t> room = RoomBelow(busy, busiest, cost);
  std::vector<int32_t> rows(ranks * ranks, 0);
  std::vector<int32_t> away(tokens.begin(), tokens.end());
  for (size_t r = 0; r < ranks; ++r) {
    const auto home = static_cast<int32_t>(std::min<int64_t>(room[r], tokens[r]));
    rows[r * ranks + r] = home;
    busy[r] += cost * home;
    away[r] -= home;
  }
  const int64_t moving = std::accumulate(away.begin(), away.end(), int64_t{0});
  room = RoomBelow(busy, LowestLevel(busy, moving, cost), cost);
  size_t to = 0;
  for (size_t r = 0; r < ranks; ++r) {
    while (away[r] > 0) {
      while (room[to] == 0) ++to;
      const auto moved = static_cast<int32_t>(std::min<int64_t>(room[to], away[r]));
      rows[r * ranks + to] += moved;
      room[to] -= moved;
      away[r] -= moved;
    }
  }
  return rows;
}

}  // namespace wideload::eplb
