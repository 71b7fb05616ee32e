#include "grammar/rule_automaton.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace wideload::grammar {

int32_t RuleAutomaton::AddNode() {
  constexpr size_t kMaxNodes = 1 << 17;  // of a rule
  if (nodes_.size() >= kMaxNodes)
    Throw(ErrorKind::kUnsupported, "a part of the grammar needs more than {} nodes", kMaxNodes);
  Spend(1);
  nodes_.emplace_back();
  return static_cast<int32_t>(nodes_.size()) - 1;
}

void RuleAutomaton::Spend(int64_t steps) {
  work_ += steps;
  if (work_ > kMaxWork)
    Throw(ErrorKind::kUnsupported, "the grammar takes more than {} steps to prepare", kMaxWork);
}

int32_t RuleAutomaton::Append(int32_t from, ExpressionId id) {
  using Kind = GrammarBuilder::Kind;
  const auto& expression = builder_.expressions_[static_cast<size_t>(id)];
  switch (expression.kind) {
    case Kind::kByte: {
      const int32_t to = AddNode();
      Move(from, {.first = static_cast<uint8_t>(expression.min),
                  .last = static_cast<uint8_t>(expression.max),
                  .target = to});
      return to;
    }
    case Kind::kBytes:
      for (const char c : expression.bytes) {
        const auto byte = static_cast<uint8_t>(c);
        const int32_t to = AddNode();
        Move(from, {.first = byte, .last = byte, .target = to});
        from = to;
      }
      return from;
    case Kind::kCall: {
      const int32_t to = AddNode();
      Move(from, {.rule = expression.rule, .target = to});
      return to;
    }
    case Kind::kRow:
      for (const ExpressionId part : expression.parts) from = Append(from, part);
      return from;
    case Kind::kChoice: {
      const int32_t to = AddNode();
      for (const ExpressionId part : expression.parts) {
        const int32_t begin = AddNode();
        Link(from, begin);
        Link(Append(begin, part), to);
      }
      return to;
    }
    case Kind::kRepeat:
      return AppendRepeat(from, expression.parts.front(), expression.min, expression.max);
    case Kind::kUntil:
      return AppendUntil(from, expression.bytes);
    case Kind::kSeparated:
      return AppendSeparated(from, expression);
  }
  return from;
}

int32_t RuleAutomaton::AppendRepeat(int32_t from, ExpressionId part, uint32_t min, uint32_t max) {
  for (uint32_t i = 0; i < min; ++i) from = Append(from, part);
  const int32_t to = AddNode();
  if (max == GrammarBuilder::kUnbounded) {
    const int32_t loop = AddNode();
    Link(from, loop);
    Link(Append(loop, part), loop);
    Link(loop, to);
    return to;
  }
  Link(from, to);
  for (uint32_t i = min; i < max; ++i) {
    from = Append(from, part);
    Link(from, to);
  }
  return to;
}

// Knuth, Morris and Pratt's automaton: node i has seen the first i bytes of the mark.
int32_t RuleAutomaton::AppendUntil(int32_t from, std::string_view mark) {
  constexpr int kLastOfText = 0xF7;  // above are bytes that no text has
  std::vector<int32_t> seen;
  for (size_t i = 0; i <= mark.size(); ++i) seen.push_back(AddNode());
  Link(from, seen.front());
  const auto longest = [mark](std::string text) {
    while (!text.empty() && !mark.starts_with(text)) text.erase(0, 1);
    return text.size();
  };
  for (size_t i = 0; i < mark.size(); ++i) {
    for (int byte = 0; byte <= 0xFF; ++byte) {
      const bool is_next = byte == static_cast<uint8_t>(mark[i]);
      if (byte > kLastOfText && !is_next) continue;
      const size_t length =
          longest(std::string(mark.substr(0, i)) + static_cast<char>(static_cast<uint8_t>(byte)));
      Move(seen[i], {.first = static_cast<uint8_t>(byte),
                     .last = static_cast<uint8_t>(byte),
                     .target = seen[length]});
    }
    Spend(256);
  }
  return seen.back();
}

// Before each item two nodes: nothing has been written, or something has and a separator is due.
int32_t RuleAutomaton::AppendSeparated(int32_t from, const GrammarBuilder::Expression& list) {
  const ExpressionId separator = list.parts.front();
  const size_t num_items = list.is_optional.size();
  const int32_t to = AddNode();
  int32_t none = from;
  int32_t some = AddNode();
  for (size_t i = 0; i < num_items; ++i) {
    const int32_t begin = AddNode();
    if (none >= 0) Link(none, begin);
    if (i > 0) Link(Append(some, separator), begin);
    const int32_t behind = AddNode();
    Link(Append(begin, list.parts[i + 1]), behind);
    if (list.is_optional[i]) {
      if (i > 0) Link(some, behind);
    } else {
      none = -1;
    }
    some = behind;
  }
  if (list.has_tail) {
    const int32_t begin = AddNode();
    if (none >= 0) Link(none, begin);
    Link(Append(begin, list.parts.back()), some);
    Link(Append(some, separator), begin);
  }
  if (none >= 0) Link(none, to);
  if (num_items > 0 || list.has_tail) Link(some, to);
  return to;
}

RuleAutomaton::Set RuleAutomaton::Closure(Set set) {
  for (const int32_t node : set) is_in_[static_cast<size_t>(node)] = true;
  for (size_t i = 0; i < set.size(); ++i) {
    for (const int32_t next : nodes_[static_cast<size_t>(set[i])].free) {
      Spend(1);
      if (is_in_[static_cast<size_t>(next)]) continue;
      is_in_[static_cast<size_t>(next)] = true;
      set.push_back(next);
    }
  }
  for (const int32_t node : set) is_in_[static_cast<size_t>(node)] = false;
  // Nodes that only lead on would make states differ that do not.
  std::erase_if(set, [this](int32_t node) {
    return nodes_[static_cast<size_t>(node)].moves.empty() && node != end_;
  });
  std::sort(set.begin(), set.end());
  Spend(static_cast<int64_t>(set.size()));
  return set;
}

int32_t RuleAutomaton::StateOf(Set set, Grammar& grammar) {
  const auto [found, is_new] =
      states_.try_emplace(std::move(set), static_cast<int32_t>(grammar.states.size()));
  if (!is_new) return found->second;
  if (std::ssize(grammar.states) >= kMaxStates)
    Throw(ErrorKind::kUnsupported, "the grammar needs more than {} states", kMaxStates);
  grammar.states.push_back({.is_end = std::ranges::binary_search(found->first, end_)});
  open_.push_back(&found->first);
  return found->second;
}

void RuleAutomaton::AddEdges(const Set& set, Grammar& grammar) {
  std::vector<Node::Move> moves;
  std::vector<int> begins;  // of stretches of bytes that lead to the same nodes
  for (const int32_t node : set) {
    for (const Node::Move& move : nodes_[static_cast<size_t>(node)].moves) {
      if (move.rule >= 0) continue;
      moves.push_back(move);
      begins.push_back(move.first);
      begins.push_back(move.last + 1);
    }
  }
  std::sort(begins.begin(), begins.end());
  begins.erase(std::unique(begins.begin(), begins.end()), begins.end());
  for (size_t i = 0; i + 1 < begins.size(); ++i) {
    Set targets;
    for (const Node::Move& move : moves)
      if (move.first <= begins[i] && begins[i] <= move.last) targets.push_back(move.target);
    Spend(static_cast<int64_t>(moves.size()));
    if (targets.empty()) continue;
    std::sort(targets.begin(), targets.end());
    targets.erase(std::unique(targets.begin(), targets.end()), targets.end());
    const int32_t target = StateOf(Closure(std::move(targets)), grammar);
    const auto first = static_cast<uint8_t>(begins[i]);
    const auto last = static_cast<uint8_t>(begins[i + 1] - 1);
    Grammar::State& state = grammar.states[static_cast<size_t>(states_.at(set))];
    Grammar::Edge* const before = state.num_edges > 0 ? &grammar.edges.back() : nullptr;
    if (before != nullptr && before->target == target && before->last + 1 == first) {
      before->last = last;
      continue;
    }
    grammar.edges.push_back({.first = first, .last = last, .target = target});
    ++state.num_edges;
  }
}

void RuleAutomaton::AddCalls(const Set& set, Grammar& grammar) {
  std::map<RuleId, Set> targets;
  for (const int32_t node : set)
    for (const Node::Move& move : nodes_[static_cast<size_t>(node)].moves)
      if (move.rule >= 0) targets[move.rule].push_back(move.target);
  for (auto& [rule, nodes] : targets) {
    std::sort(nodes.begin(), nodes.end());
    nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
    const int32_t target = StateOf(Closure(nodes), grammar);
    grammar.calls.push_back({.entry = rule, .target = target});
    ++grammar.states[static_cast<size_t>(states_.at(set))].num_calls;
  }
}

int32_t RuleAutomaton::AppendTo(Grammar& grammar, ExpressionId body) {
  const int32_t begin = AddNode();
  end_ = Append(begin, body);
  is_in_.assign(nodes_.size(), false);
  const int32_t entry = StateOf(Closure({begin}), grammar);
  for (size_t i = 0; i < open_.size(); ++i) {
    const Set& set = *open_[i];  // of a map: stays where it is
    Grammar::State& state = grammar.states[static_cast<size_t>(states_.at(set))];
    state.first_edge = static_cast<int32_t>(grammar.edges.size());
    state.first_call = static_cast<int32_t>(grammar.calls.size());
    AddEdges(set, grammar);
    AddCalls(set, grammar);
  }
  return entry;
}

}  // namespace wideload::grammar
