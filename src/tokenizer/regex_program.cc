#include "tokenizer/regex_program.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace wideload::tokenizer {
namespace {

using Kind = RegexNode::Kind;
using Mode = RegexNode::Mode;
using Op = RegexInstruction::Op;

constexpr size_t kMaxInstructions = 50'000;

// The bytes that a match can begin with, and whether it can be empty.
struct First {
  std::bitset<256> bytes;
  bool can_be_empty = true;
};

class Compiler {
 public:
  Compiler(RegexProgram& program, const std::string& where) : program_(program), where_(where) {}

  void Compile(const RegexNode& root) {
    program_.first_of_match = AddFirst(FirstOf(root));
    Emit(root);
    Add({.op = Op::kEnd});
  }

 private:
  uint32_t Here() const { return static_cast<uint32_t>(program_.instructions.size()); }
  RegexInstruction& At(uint32_t index) { return program_.instructions[index]; }

  uint32_t Add(RegexInstruction instruction) {
    if (program_.instructions.size() >= kMaxInstructions)
      Throw(ErrorKind::kUnsupported,
            "{}: the regular expression is larger than {} instructions once its counts are "
            "written out",
            where_, kMaxInstructions);
    program_.instructions.push_back(instruction);
    return Here() - 1;
  }

  uint32_t ClassOf(const CodePointSet& set) {
    for (size_t i = 0; i < sets_.size(); ++i)
      if (sets_[i] == set) return static_cast<uint32_t>(i);
    sets_.push_back(set);
    program_.classes.emplace_back(set);
    return static_cast<uint32_t>(sets_.size() - 1);
  }

  int32_t AddFirst(const First& first) {
    if (first.can_be_empty) return -1;
    auto& known = program_.first_bytes;
    const auto found = std::find(known.begin(), known.end(), first.bytes);
    const auto index = static_cast<int32_t>(found - known.begin());
    if (found == known.end()) known.push_back(first.bytes);
    return index;
  }

  First FirstOf(const RegexNode& node) {
    switch (node.kind) {
      case Kind::kSet:
        return {program_.classes[ClassOf(node.set)].first_bytes(), false};
      case Kind::kRow:
        return FirstOfRow(node.children.begin(), node.children.end());
      case Kind::kChoice: {
        First first{.can_be_empty = false};
        for (const RegexNode& child : node.children) {
          const First of_child = FirstOf(child);
          first.bytes |= of_child.bytes;
          first.can_be_empty = first.can_be_empty || of_child.can_be_empty;
        }
        return first;
      }
      case Kind::kRepeat: {
        First first = FirstOf(node.children[0]);
        first.can_be_empty = first.can_be_empty || node.min == 0;
        return first;
      }
      case Kind::kAtomic:
        return FirstOf(node.children[0]);
      case Kind::kEmpty:
      case Kind::kLookAhead:
      case Kind::kLookBehind:
        return {};
    }
    return {};
  }

  template <class Iterator>
  First FirstOfRow(Iterator begin, Iterator end) {
    First first;
    for (; begin != end && first.can_be_empty; ++begin) {
      const First of_child = FirstOf(*begin);
      first.bytes |= of_child.bytes;
      first.can_be_empty = of_child.can_be_empty;
    }
    return first;
  }

  void Emit(const RegexNode& node) {
    switch (node.kind) {
      case Kind::kEmpty:
        return;
      case Kind::kSet:
        return EmitSet(node.set);
      case Kind::kRow:
        for (const RegexNode& child : node.children) Emit(child);
        return;
      case Kind::kChoice:
        return EmitChoice(node);
      case Kind::kRepeat:
        return EmitRepeat(node);
      case Kind::kAtomic:
        return EmitPart(node, Op::kAtomic);
      case Kind::kLookAhead:
        return EmitPart(node, Op::kLookAhead);
      case Kind::kLookBehind:
        return EmitPart(node, Op::kLookBehind);
    }
  }

  void EmitSet(const CodePointSet& set) {
    const auto& ranges = set.ranges();
    const bool is_byte =
        ranges.size() == 1 && ranges[0].first == ranges[0].last && ranges[0].first < 0x80;
    Add({.op = is_byte ? Op::kByte : Op::kSet, .index = is_byte ? ranges[0].first : ClassOf(set)});
  }

  void EmitPart(const RegexNode& node, Op op) {
    const uint32_t part =
        Add({.op = op, .is_negated = node.is_negated, .index = Here() + 1, .min = node.min});
    Emit(node.children[0]);
    Add({.op = Op::kEnd});
    At(part).other = Here();
  }

  void EmitChoice(const RegexNode& node) {
    // First bytes of each child and all behind it.
    std::vector<First> first_of;
    std::vector<First> first_from;
    for (auto child = node.children.rbegin(); child != node.children.rend(); ++child) {
      First first = FirstOf(*child);
      first_of.push_back(first);
      if (!first_from.empty()) {
        first.bytes |= first_from.back().bytes;
        first.can_be_empty = first.can_be_empty || first_from.back().can_be_empty;
      }
      first_from.push_back(first);
    }
    std::reverse(first_of.begin(), first_of.end());
    std::reverse(first_from.begin(), first_from.end());
    std::vector<uint32_t> jumps;
    for (size_t i = 0; i + 1 < node.children.size(); ++i) {
      const uint32_t split = Add({.op = Op::kSplit, .index = Here() + 1});
      At(split).first_of_index = AddFirst(first_of[i]);
      At(split).first_of_other = AddFirst(first_from[i + 1]);
      Emit(node.children[i]);
      jumps.push_back(Add({.op = Op::kJump}));
      At(split).other = Here();
    }
    Emit(node.children.back());
    for (const uint32_t jump : jumps) At(jump).index = Here();
  }

  void EmitRepeat(const RegexNode& node) {
    const RegexNode& child = node.children[0];
    if (child.kind == Kind::kSet && node.mode != Mode::kLazy) {
      Add({.op = Op::kRepeatSet,
           .gives_back = node.mode == Mode::kGreedy,
           .index = ClassOf(child.set),
           .min = node.min,
           .max = node.max});
      return;
    }
    if (node.mode == Mode::kPossessive) {
      RegexNode greedy = node;
      greedy.mode = Mode::kGreedy;
      return EmitPart({.kind = Kind::kAtomic, .children = {std::move(greedy)}}, Op::kAtomic);
    }
    for (uint32_t i = 0; i < node.min; ++i) Emit(child);
    if (node.max == RegexNode::kUnbounded) return EmitLoop(node);
    std::vector<uint32_t> splits;
    for (uint32_t i = node.min; i < node.max; ++i) {
      splits.push_back(AddSplit(node.mode));
      Emit(child);
    }
    for (const uint32_t split : splits) SetExit(split, node.mode);
  }

  // A round that takes nothing ends the loop.
  void EmitLoop(const RegexNode& node) {
    const uint32_t split = AddSplit(node.mode);
    const bool can_be_empty = FirstOf(node.children[0]).can_be_empty;
    const uint32_t mark = can_be_empty ? program_.num_registers++ : 0;
    if (can_be_empty) Add({.op = Op::kMark, .index = mark});
    Emit(node.children[0]);
    const uint32_t moved = can_be_empty ? Add({.op = Op::kMoved, .index = mark}) : 0;
    Add({.op = Op::kJump, .index = split});
    if (can_be_empty) At(moved).other = Here();
    SetExit(split, node.mode);
  }

  // A split whose way into the loop is the next instruction.
  uint32_t AddSplit(Mode mode) {
    const uint32_t split = Add({.op = Op::kSplit});
    (mode == Mode::kLazy ? At(split).other : At(split).index) = Here();
    return split;
  }
  void SetExit(uint32_t split, Mode mode) {
    (mode == Mode::kLazy ? At(split).index : At(split).other) = Here();
  }

  RegexProgram& program_;
  const std::string& where_;
  std::vector<CodePointSet> sets_;  // of program_.classes
};

}  // namespace

RegexProgram::RegexProgram(const RegexNode& root, const std::string& where) {
  Compiler(*this, where).Compile(root);
}

}  // namespace wideload::tokenizer
