// From the expression of one rule to its deterministic automaton. Pure; used by GrammarBuilder.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string_view>
#include <vector>

#include "grammar/grammar.h"

namespace wideload::grammar {

// The bytes that lead on from a state, sorted.
inline std::span<const Grammar::Edge> EdgesOf(const Grammar& grammar, int32_t state) {
  const Grammar::State& s = grammar.states[static_cast<size_t>(state)];
  return {grammar.edges.data() + s.first_edge, static_cast<size_t>(s.num_edges)};
}
// The rules that a state calls.
inline std::span<const Grammar::Call> CallsOf(const Grammar& grammar, int32_t state) {
  const Grammar::State& s = grammar.states[static_cast<size_t>(state)];
  return {grammar.calls.data() + s.first_call, static_cast<size_t>(s.num_calls)};
}

class RuleAutomaton {
 public:
  // `work` counts the steps of all rules together, up to kMaxWork.
  RuleAutomaton(const GrammarBuilder& builder, int64_t& work) : builder_(builder), work_(work) {}

  // Appends the states of the rule with this body; a call's `entry` is the number of its rule.
  // Returns the state in which it begins. Errors: kUnsupported above the limits.
  int32_t AppendTo(Grammar& grammar, ExpressionId body);

 private:
  // Nondeterministic, with moves that take nothing.
  struct Node {
    struct Move {
      uint8_t first = 0, last = 0;
      RuleId rule = -1;  // -1: a byte
      int32_t target = 0;
    };
    std::vector<int32_t> free;
    std::vector<Move> moves;
  };
  using Set = std::vector<int32_t>;  // of nodes, ascending

  int32_t AddNode();
  void Link(int32_t from, int32_t to) { nodes_[static_cast<size_t>(from)].free.push_back(to); }
  void Move(int32_t from, Node::Move move) {
    nodes_[static_cast<size_t>(from)].moves.push_back(move);
  }
  void Spend(int64_t steps);
  // Appends an expression behind `from`; returns the node at its end.
  int32_t Append(int32_t from, ExpressionId id);
  int32_t AppendRepeat(int32_t from, ExpressionId part, uint32_t min, uint32_t max);
  int32_t AppendUntil(int32_t from, std::string_view mark);
  int32_t AppendSeparated(int32_t from, const GrammarBuilder::Expression& list);

  Set Closure(Set set);
  int32_t StateOf(Set set, Grammar& grammar);
  void AddEdges(const Set& set, Grammar& grammar);
  void AddCalls(const Set& set, Grammar& grammar);

  const GrammarBuilder& builder_;
  int64_t& work_;
  std::vector<Node> nodes_;
  int32_t end_ = 0;
  std::map<Set, int32_t> states_;
  std::vector<const Set*> open_;  // states without edges yet, in their order
  std::vector<bool> is_in_;       // of nodes: in the closure that is being made
};

}  // namespace wideload::grammar
