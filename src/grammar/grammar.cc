#include "grammar/grammar.h"

#include <algorithm>
#include <span>
#include <utility>

#include "base/error.h"
#include "grammar/rule_automaton.h"
#include "grammar/utf8_ranges.h"

namespace wideload::grammar {
namespace {

// Removes what leads to no end, and says whether the entry is left.
class Trimmer {
 public:
  explicit Trimmer(Grammar& grammar)
      : grammar_(grammar), is_good_(grammar.states.size()), users_(grammar.states.size()) {}

  bool Trim() {
    FindUsers();
    for (size_t s = 0; s < grammar_.states.size(); ++s)
      if (grammar_.states[s].is_end) Reach(static_cast<int32_t>(s));
    while (!open_.empty()) {
      const int32_t reached = open_.back();
      open_.pop_back();
      for (const int32_t user : users_[static_cast<size_t>(reached)])
        if (!IsGood(user) && LeadsToGood(user)) Reach(user);
    }
    if (!IsGood(grammar_.entry)) return false;
    RemoveBad();
    return true;
  }

 private:
  bool IsGood(int32_t state) const { return is_good_[static_cast<size_t>(state)]; }
  bool IsGood(const Grammar::Call& call) const { return IsGood(call.entry) && IsGood(call.target); }

  void Reach(int32_t state) {
    is_good_[static_cast<size_t>(state)] = true;
    open_.push_back(state);
  }

  void FindUsers() {
    for (size_t s = 0; s < grammar_.states.size(); ++s) {
      const auto user = static_cast<int32_t>(s);
      for (const Grammar::Edge& edge : EdgesOf(grammar_, user))
        users_[static_cast<size_t>(edge.target)].push_back(user);
      for (const Grammar::Call& call : CallsOf(grammar_, user)) {
        users_[static_cast<size_t>(call.target)].push_back(user);
        users_[static_cast<size_t>(call.entry)].push_back(user);
      }
    }
  }

  bool LeadsToGood(int32_t state) const {
    const auto edges = EdgesOf(grammar_, state);
    const auto calls = CallsOf(grammar_, state);
    return std::ranges::any_of(edges, [&](const auto& edge) { return IsGood(edge.target); }) ||
           std::ranges::any_of(calls, [&](const auto& call) { return IsGood(call); });
  }

  void RemoveBad() {
    std::vector<Grammar::Edge> edges;
    std::vector<Grammar::Call> calls;
    for (size_t s = 0; s < grammar_.states.size(); ++s) {
      Grammar::State state = grammar_.states[s];
      state.first_edge = static_cast<int32_t>(edges.size());
      state.first_call = static_cast<int32_t>(calls.size());
      for (const Grammar::Edge& edge : EdgesOf(grammar_, static_cast<int32_t>(s)))
        if (IsGood(edge.target)) edges.push_back(edge);
      for (const Grammar::Call& call : CallsOf(grammar_, static_cast<int32_t>(s)))
        if (IsGood(call)) calls.push_back(call);
      state.num_edges = static_cast<int32_t>(edges.size()) - state.first_edge;
      state.num_calls = static_cast<int32_t>(calls.size()) - state.first_call;
      new_states_.push_back(state);
    }
    grammar_.states = std::move(new_states_);
    grammar_.edges = std::move(edges);
    grammar_.calls = std::move(calls);
  }

  Grammar& grammar_;
  std::vector<bool> is_good_;
  std::vector<std::vector<int32_t>> users_;
  std::vector<int32_t> open_;
  std::vector<Grammar::State> new_states_;
};

// A rule that can begin with a call of itself has texts without end, and no first byte. `entries`
// of the rules.
bool HasLeftRecursion(const Grammar& grammar, const std::vector<int32_t>& entries) {
  enum Mark : char { kNew, kOpen, kDone };
  std::vector<Mark> marks(grammar.states.size(), kNew);
  struct Frame {
    int32_t state;
    int32_t next;
  };
  std::vector<Frame> open;
  for (const int32_t first : entries) {
    if (marks[static_cast<size_t>(first)] != kNew) continue;
    marks[static_cast<size_t>(first)] = kOpen;
    open.push_back({.state = first, .next = 0});
    while (!open.empty()) {
      Frame& frame = open.back();
      const auto calls = CallsOf(grammar, frame.state);
      if (frame.next == std::ssize(calls)) {
        marks[static_cast<size_t>(frame.state)] = kDone;
        open.pop_back();
        continue;
      }
      const int32_t called = calls[static_cast<size_t>(frame.next++)].entry;
      Mark& mark = marks[static_cast<size_t>(called)];
      if (mark == kOpen) return true;
      if (mark == kDone) continue;
      mark = kOpen;
      open.push_back({.state = called, .next = 0});
    }
  }
  return false;
}

}  // namespace

std::string SpecialBytes(int32_t token_id) {
  const auto byte = [token_id](int shift) {
    return static_cast<char>(static_cast<uint32_t>(token_id) >> shift & 0xFF);
  };
  return {static_cast<char>(kSpecialByte), byte(16), byte(8), byte(0)};
}

int64_t Grammar::size_bytes() const {
  return static_cast<int64_t>(states.size() * sizeof(State) + edges.size() * sizeof(Edge) +
                              calls.size() * sizeof(Call));
}

bool Grammar::is_sound() const {
  const auto num_states = static_cast<int64_t>(states.size());
  const auto is_state = [&](int32_t state) { return state >= 0 && state < num_states; };
  const auto lie_within = [](int32_t first, int32_t count, size_t size) {
    return first >= 0 && count >= 0 && int64_t{first} + count <= static_cast<int64_t>(size);
  };
  // Ranges of bytes one behind the other: at most 256.
  const auto are_apart = [&](const State& state) {
    int32_t before = -1;
    return std::ranges::all_of(std::span(edges).subspan(static_cast<size_t>(state.first_edge),
                                                        static_cast<size_t>(state.num_edges)),
                               [&](const Edge& edge) {
                                 return edge.first > std::exchange(before, edge.last) &&
                                        edge.last >= edge.first;
                               });
  };
  return num_states <= kMaxStates && is_state(entry) &&
         std::ranges::all_of(states,
                             [&](const State& state) {
                               return lie_within(state.first_edge, state.num_edges, edges.size()) &&
                                      lie_within(state.first_call, state.num_calls, calls.size()) &&
                                      are_apart(state);
                             }) &&
         std::ranges::all_of(edges, [&](const Edge& edge) { return is_state(edge.target); }) &&
         std::ranges::all_of(calls, [&](const Call& call) {
           return is_state(call.entry) && is_state(call.target);
         });
}

ExpressionId GrammarBuilder::Add(Expression expression) {
  constexpr size_t kMaxExpressions = 1 << 17;
  if (expressions_.size() >= kMaxExpressions)
    Throw(ErrorKind::kUnsupported, "the grammar has more than {} parts", kMaxExpressions);
  expressions_.push_back(std::move(expression));
  return static_cast<ExpressionId>(expressions_.size()) - 1;
}

ExpressionId GrammarBuilder::AnyByte(uint8_t first, uint8_t last) {
  return Add({.kind = Kind::kByte, .min = first, .max = last});
}

ExpressionId GrammarBuilder::Bytes(std::string_view bytes) {
  return Add({.kind = Kind::kBytes, .parts = {}, .bytes = std::string(bytes)});
}

ExpressionId GrammarBuilder::Characters(const tokenizer::CodePointSet& set) {
  std::vector<ExpressionId> parts;
  for (const auto& [first, last] : set.ranges()) {
    for (const ByteRanges& ranges : Utf8Ranges(first, last)) {
      std::vector<ExpressionId> row;
      for (int i = 0; i < ranges.size; ++i) {
        const ByteRanges::Range range = ranges.ranges[static_cast<size_t>(i)];
        row.push_back(AnyByte(range.first, range.last));
      }
      parts.push_back(Row(std::move(row)));
    }
  }
  return Choice(std::move(parts));
}

ExpressionId GrammarBuilder::Row(std::vector<ExpressionId> parts) {
  if (parts.size() == 1) return parts.front();
  return Add({.kind = Kind::kRow, .parts = std::move(parts)});
}

ExpressionId GrammarBuilder::Choice(std::vector<ExpressionId> parts) {
  if (parts.size() == 1) return parts.front();
  return Add({.kind = Kind::kChoice, .parts = std::move(parts)});
}

ExpressionId GrammarBuilder::Repeat(ExpressionId part, uint32_t min, uint32_t max) {
  if (min > kMaxCount || (max != kUnbounded && max > kMaxCount))
    Throw(ErrorKind::kUnsupported, "something is repeated {} times; at most {} are supported",
          max == kUnbounded ? min : max, kMaxCount);
  return Add({.kind = Kind::kRepeat, .parts = {part}, .min = min, .max = max});
}

ExpressionId GrammarBuilder::Until(std::string_view mark) {
  return Add({.kind = Kind::kUntil, .parts = {}, .bytes = std::string(mark)});
}

ExpressionId GrammarBuilder::Separated(List list) {
  Expression expression{.kind = Kind::kSeparated, .parts = {list.separator}};
  for (const ListItem& item : list.items) {
    expression.parts.push_back(item.part);
    expression.is_optional.push_back(item.is_optional);
  }
  expression.has_tail = list.tail >= 0;
  if (expression.has_tail) expression.parts.push_back(list.tail);
  return Add(std::move(expression));
}

RuleId GrammarBuilder::AddRule() {
  if (std::ssize(bodies_) >= kMaxRules)
    Throw(ErrorKind::kUnsupported, "the grammar has more than {} rules", kMaxRules);
  bodies_.push_back(-1);
  return static_cast<RuleId>(bodies_.size()) - 1;
}

void GrammarBuilder::Define(RuleId rule, ExpressionId body) {
  ExpressionId& place = bodies_[static_cast<size_t>(rule)];
  WIDELOAD_CHECK(place < 0, "rule {} is defined twice", rule);
  place = body;
}

ExpressionId GrammarBuilder::Call(RuleId rule) {
  return Add({.kind = Kind::kCall, .parts = {}, .rule = rule});
}

Grammar GrammarBuilder::Build(RuleId root) const {
  Grammar grammar;
  std::vector<int32_t> entries;  // of the rules, in which calls name rules until all are there
  int64_t work = 0;
  for (const ExpressionId body : bodies_) {
    WIDELOAD_CHECK(body >= 0, "rule {} has no text", entries.size());
    entries.push_back(RuleAutomaton(*this, work).AppendTo(grammar, body));
  }
  for (Grammar::Call& call : grammar.calls) {
    call.entry = entries[static_cast<size_t>(call.entry)];
    if (grammar.states[static_cast<size_t>(call.entry)].is_end)
      Throw(ErrorKind::kUnsupported, "a part of the grammar that others use may be empty");
  }
  grammar.entry = entries[static_cast<size_t>(root)];
  if (HasLeftRecursion(grammar, entries))
    Throw(ErrorKind::kUnsupported, "it refers to itself without a character between");
  if (!Trimmer(grammar).Trim()) Throw(ErrorKind::kUnsupported, "no text can satisfy it");
  return grammar;
}

}  // namespace wideload::grammar
