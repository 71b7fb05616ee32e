// Languages of texts as automata of bytes that call each other, and how they are put together.
// A Grammar is immutable and may be used by many threads; a GrammarBuilder belongs to one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/code_points.h"

namespace wideload::grammar {

// A byte that no text holds: it and three more, the highest first, stand for a special token's id,
// so that such tokens come where the grammar asks for them and nowhere else.
inline constexpr uint8_t kSpecialByte = 0xFF;
// The bytes that stand for a special token.
std::string SpecialBytes(int32_t token_id);

// How much of a client's grammar is taken: what is above is refused, as it would cost the time and
// memory of others.
inline constexpr int64_t kMaxRules = 4096;
inline constexpr int64_t kMaxStates = 65536;    // of all automata
inline constexpr int64_t kMaxWork = 5'000'000;  // steps of making them: about 50 ms
inline constexpr uint32_t kMaxCount = 1024;     // of a repetition with an upper bound

// Deterministic automata, one for each rule, over bytes and calls of rules: a call is the text of
// the rule called, in its place. From every state an end can be reached.
struct Grammar {
  // Bytes first to last lead to `target`.
  struct Edge {
    uint8_t first = 0, last = 0;
    int32_t target = 0;
  };
  // A text of the rule that begins in state `entry` leads to `target`.
  struct Call {
    int32_t entry = 0;
    int32_t target = 0;
  };
  // Of an automaton: what leads on from it.
  struct State {
    int32_t first_edge = 0, num_edges = 0;  // sorted by their bytes
    int32_t first_call = 0, num_calls = 0;
    bool is_end = false;  // the rule's text may end here
  };
  std::vector<State> states;
  std::vector<Edge> edges;
  std::vector<Call> calls;
  int32_t entry = 0;  // of the whole

  // Bytes of memory.
  int64_t size_bytes() const;
  // Whether all places that it names are there, the bytes of each state's edges are sorted and it
  // has no more than kMaxStates, so that what comes from elsewhere can be used.
  bool is_sound() const;
};

// A part of a text; of one builder.
using ExpressionId = int32_t;
// A text with a name, which parts can call; of one builder.
using RuleId = int32_t;

// Puts a grammar together: parts from smaller ones, then rules, then the whole.
class GrammarBuilder {
 public:
  static constexpr uint32_t kUnbounded = UINT32_MAX;

  // The empty text.
  ExpressionId Empty() { return Row({}); }
  // These bytes.
  ExpressionId Bytes(std::string_view bytes);
  // One byte of first to last.
  ExpressionId AnyByte(uint8_t first, uint8_t last);
  // The UTF-8 of one of these; of none: nothing matches. Surrogates are left out.
  ExpressionId Characters(const tokenizer::CodePointSet& set);
  // One part after the other.
  ExpressionId Row(std::vector<ExpressionId> parts);
  // Any one of the parts; of none: nothing matches.
  ExpressionId Choice(std::vector<ExpressionId> parts);
  // Errors: kUnsupported for bounds above kMaxCount.
  ExpressionId Repeat(ExpressionId part, uint32_t min, uint32_t max);
  // The part or nothing.
  ExpressionId Optional(ExpressionId part) { return Repeat(part, 0, 1); }
  // Any bytes up to the first `mark`, and it.
  ExpressionId Until(std::string_view mark);

  // Parts with a separator between each two.
  struct ListItem {
    ExpressionId part = 0;
    bool is_optional = false;
  };
  // Items in this order, those that are there, and then the tail as often as it likes.
  struct List {
    std::vector<ListItem> items;
    ExpressionId separator = 0;
    ExpressionId tail = -1;  // follows any number of times; -1: nothing does
  };
  // The parts that are there, separated; the empty text where none has to be.
  ExpressionId Separated(List list);

  // Errors: kUnsupported above kMaxRules.
  RuleId AddRule();
  // Once each. A rule that is called must not have the empty text.
  void Define(RuleId rule, ExpressionId body);
  // A text of the rule, which may be defined later.
  ExpressionId Call(RuleId rule);

  // The texts of `root`. Errors: kUnsupported, saying what, above the limits, when rules call each
  // other without a byte between, and when there is no text at all.
  Grammar Build(RuleId root) const;

 private:
  friend class RuleAutomaton;
  enum class Kind { kByte, kBytes, kRow, kChoice, kRepeat, kUntil, kSeparated, kCall };
  struct Expression {
    Kind kind = Kind::kRow;
    std::vector<ExpressionId> parts;
    uint32_t min = 0, max = 0;      // of kRepeat; of kByte the first and the last
    std::string bytes;              // of kBytes and kUntil
    std::vector<bool> is_optional;  // of kSeparated: of each part but the separator and the tail
    bool has_tail = false;          // likewise: the last part follows any number of times
    RuleId rule = -1;
  };
  ExpressionId Add(Expression expression);

  std::vector<Expression> expressions_;
  std::vector<ExpressionId> bodies_;  // of rules; -1: not defined
};

}  // namespace wideload::grammar
