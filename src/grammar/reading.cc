#include "grammar/reading.h"

#include <algorithm>
#include <utility>

#include "grammar/rule_automaton.h"

namespace wideload::grammar {

size_t Readings::HashSet::operator()(const std::vector<int32_t>& values) const {
  uint64_t hash = values.size();
  for (const int32_t value : values)
    hash = (hash ^ static_cast<uint32_t>(value)) * 0x9E3779B97F4A7C15U + (hash >> 29);
  return static_cast<size_t>(hash);
}

int32_t Readings::WayOf(int32_t state, int32_t caller) {
  const uint64_t key = uint64_t{static_cast<uint32_t>(caller)} << 32 | static_cast<uint32_t>(state);
  const auto [found, is_new] = way_of_.try_emplace(key, static_cast<int32_t>(ways_.size()));
  if (!is_new) return found->second;
  ways_.push_back({.state = state, .caller = caller});
  seen_.push_back(0);
  size_bytes_ += 64;  // with its place in the table
  return found->second;
}

void Readings::Reach(int32_t way, std::vector<int32_t>& open) {
  uint32_t& seen = seen_[static_cast<size_t>(way)];
  if (seen == closure_ || open.size() >= 4 * kMaxWays) return;
  seen = closure_;
  open.push_back(way);
}

// Adds what can come next without a byte: rules that end, rules that are called.
int32_t Readings::ReadingOf(std::vector<int32_t> reached) {
  bool is_end = false;
  for (size_t i = 0; i < reached.size(); ++i) {
    const Way way = ways_[static_cast<size_t>(reached[i])];
    if (grammar_.states[static_cast<size_t>(way.state)].is_end) {
      if (way.caller < 0)
        is_end = true;
      else
        Reach(way.caller, reached);
    }
    for (const Grammar::Call& call : CallsOf(grammar_, way.state)) {
      const Grammar::State& target = grammar_.states[static_cast<size_t>(call.target)];
      const bool is_last = target.is_end && target.num_edges == 0 && target.num_calls == 0;
      const int32_t caller = is_last ? way.caller : WayOf(call.target, way.caller);
      Reach(WayOf(call.entry, caller), reached);
    }
  }
  std::erase_if(reached, [this](int32_t way) {
    return grammar_.states[static_cast<size_t>(ways_[static_cast<size_t>(way)].state)].num_edges ==
           0;
  });
  if (reached.size() > kMaxWays) reached.resize(kMaxWays);
  if (reached.empty() && !is_end) return kDead;
  std::sort(reached.begin(), reached.end());
  reached.push_back(is_end ? 1 : 0);
  const auto [found, is_new] =
      reading_of_.try_emplace(reached, static_cast<int32_t>(readings_.size()));
  if (!is_new) return found->second;
  size_bytes_ += 160 + static_cast<int64_t>(reached.size()) * 8;
  reached.pop_back();
  readings_.push_back({.ways = std::move(reached), .is_end = is_end, .row = nullptr});
  return found->second;
}

int32_t Readings::BeginIn(int32_t state) {
  ++closure_;
  std::vector<int32_t> reached;
  Reach(WayOf(state, -1), reached);
  return ReadingOf(std::move(reached));
}

int32_t Readings::BeginInside(int32_t state) {
  const int32_t way = WayOf(state, -1);
  const auto [found, is_new] =
      reading_of_.try_emplace({way, 2}, static_cast<int32_t>(readings_.size()));
  if (is_new) readings_.push_back({.ways = {way}, .row = nullptr});
  return found->second;
}

int32_t Readings::FindNext(int32_t reading, uint8_t byte) {
  ++closure_;
  std::vector<int32_t> reached = std::exchange(scratch_, {});
  reached.clear();
  for (const int32_t id : readings_[static_cast<size_t>(reading)].ways) {
    const Way way = ways_[static_cast<size_t>(id)];
    const auto edges = EdgesOf(grammar_, way.state);
    const auto edge = std::ranges::lower_bound(edges, byte, {}, &Grammar::Edge::last);
    if (edge != edges.end() && edge->first <= byte) Reach(WayOf(edge->target, way.caller), reached);
  }
  int32_t next = kDead;
  if (!reached.empty()) next = ReadingOf(reached);
  scratch_ = std::move(reached);
  Reading& r = readings_[static_cast<size_t>(reading)];
  constexpr uint16_t kOften = 4;
  if (r.row == nullptr && ++r.num_asked >= kOften) {
    r.row = std::make_unique<int32_t[]>(256);
    std::fill_n(r.row.get(), 256, kUnknown);
    size_bytes_ += int64_t{256} * 4;
  }
  if (r.row != nullptr) r.row[byte] = next;
  return next;
}

std::vector<int32_t> Readings::StatesOf(int32_t reading) const {
  std::vector<int32_t> states;
  for (const int32_t way : readings_[static_cast<size_t>(reading)].ways)
    states.push_back(ways_[static_cast<size_t>(way)].state);
  std::sort(states.begin(), states.end());
  states.erase(std::unique(states.begin(), states.end()), states.end());
  return states;
}

int32_t Readings::TakeWay(const Readings& other, int32_t way) {
  std::vector<int32_t> states;
  for (; way >= 0; way = other.ways_[static_cast<size_t>(way)].caller)
    states.push_back(other.ways_[static_cast<size_t>(way)].state);
  int32_t taken = -1;
  for (size_t i = states.size(); i-- > 0;) taken = WayOf(states[i], taken);
  return taken;
}

int32_t Readings::Take(const Readings& other, int32_t reading) {
  if (reading == kDead) return kDead;
  const Reading& given = other.readings_[static_cast<size_t>(reading)];
  std::vector<int32_t> ways;
  for (const int32_t way : given.ways) ways.push_back(TakeWay(other, way));
  std::sort(ways.begin(), ways.end());
  std::vector<int32_t> key = ways;
  key.push_back(given.is_end ? 1 : 0);
  const auto [found, is_new] =
      reading_of_.try_emplace(std::move(key), static_cast<int32_t>(readings_.size()));
  if (is_new) {
    size_bytes_ += 160 + static_cast<int64_t>(ways.size()) * 8;
    readings_.push_back({.ways = std::move(ways), .is_end = given.is_end, .row = nullptr});
  }
  return found->second;
}

}  // namespace wideload::grammar
