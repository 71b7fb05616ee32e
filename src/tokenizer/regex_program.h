// A regular expression as instructions for the matcher in regex.cc. Immutable after construction;
// thread-safe.
#pragma once

#include <bitset>
#include <cstdint>
#include <string>
#include <vector>

#include "tokenizer/code_points.h"
#include "tokenizer/regex_syntax.h"

namespace wideload::tokenizer {

// One step of the matcher.
struct RegexInstruction {
  // What the step looks for, or where it goes on.
  enum class Op : uint8_t {
    kByte,        // the byte `index`
    kSet,         // one character of the class `index`
    kRepeatSet,   // `min` to `max` characters of the class `index`, as many as there are
    kSplit,       // go on at `index`; where that fails, at `other`
    kJump,        // go on at `index`
    kMark,        // keep the position in the register `index`
    kMoved,       // go on, or at `other` if the position is that of the kMark of `index`
    kAtomic,      // run `index` up to its kEnd, then go on at `other` whatever comes
    kLookAhead,   // the same, and return to the position; is_negated: fail where it matches
    kLookBehind,  // the same `min` characters further left; its match ends at the position
    kEnd,         // a match, of the whole or of the part that the last three run
  };

  Op op = Op::kEnd;
  bool gives_back = false;  // kRepeatSet: fewer are tried where the rest fails
  bool is_negated = false;
  uint32_t index = 0;
  uint32_t other = 0;
  uint32_t min = 0;
  uint32_t max = 0;
  // kSplit: the bytes that a match from `index`, and from `other`, can begin with, as indices of
  // `first_bytes`; -1 where it can be empty.
  int32_t first_of_index = -1;
  int32_t first_of_other = -1;
};

struct RegexProgram {
  // Errors: kUnsupported, naming `where`, where the expression is too large once its counts are
  // written out.
  RegexProgram(const RegexNode& root, const std::string& where);

  std::vector<RegexInstruction> instructions;  // starts at 0
  std::vector<CharacterClass> classes;
  std::vector<std::bitset<256>> first_bytes;
  int32_t first_of_match = -1;  // as first_of_index, of the whole
  uint32_t num_registers = 0;
};

}  // namespace wideload::tokenizer
