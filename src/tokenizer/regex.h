// Regular expressions of tokenizer.json, which are written for Oniguruma, run by a backtracking
// matcher with bounds on time and memory. A Regex is immutable and may be used by many threads,
// each with its own RegexScratch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace wideload::tokenizer {

// Half-open range of bytes.
struct TextRange {
  size_t begin = 0;
  size_t end = 0;
};

struct RegexProgram;

// What one thread needs to search, kept between searches so that they need not allocate.
class RegexScratch {
 private:
  friend class Matcher;
  // What to do when the present way fails.
  struct Frame {
    uint32_t instruction;  // where to go on, or kRestore
    uint32_t unit;         // kRestore: the register
    size_t position;       // there, or the old value of the register
    size_t lowest;         // of a greedy repeat: the position may yet go down to this
  };
  std::vector<Frame> frames_;
  std::vector<size_t> registers_;
};

class Regex {
 public:
  // Errors: as ParseRegex and RegexProgram.
  Regex(std::string_view pattern, std::string where);
  // Finds exactly `text`, which must not be empty.
  static Regex Literal(std::string_view text, std::string where);

  // All matches in well-formed UTF-8, left to right, not overlapping; an empty match is reported
  // unless it touches the match before it. Errors: kResource, naming `where`, when all searches
  // together exceed the bounds for this text: steps, linear in its length, and memory.
  std::vector<TextRange> FindAll(std::string_view text, RegexScratch& scratch) const;

 private:
  Regex() = default;

  std::string where_;
  std::string literal_;                          // of Literal
  std::shared_ptr<const RegexProgram> program_;  // else; shared by copies of this Regex
};

}  // namespace wideload::tokenizer
