#include "tokenizer/regex.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "tokenizer/regex_program.h"
#include "tokenizer/regex_syntax.h"
#include "tokenizer/unicode.h"

namespace wideload::tokenizer {

// One text and the searches in it. A step is an instruction or a character of a repeat.
class Matcher {
 public:
  Matcher(const RegexProgram& program, std::string_view text, const std::string& where,
          RegexScratch& scratch)
      : program_(program),
        text_(text),
        where_(where),
        frames_(scratch.frames_),
        registers_(scratch.registers_),
        steps_left_(kFreeSteps + kStepsPerByte * static_cast<int64_t>(text.size())) {
    registers_.assign(program.num_registers, 0);
  }

  // The first match that begins at `start` or behind it.
  bool Find(size_t start, TextRange& match) {
    for (; start <= text_.size(); start = After(start)) {
      Spend(1);
      if (!CanBegin(program_.first_of_match, start)) continue;
      frames_.clear();
      if (Run(0, start, match.end)) {
        match.begin = start;
        return true;
      }
    }
    return false;
  }

  // The position behind the character at `position`.
  size_t After(size_t position) const {
    if (position >= text_.size()) return position + 1;
    return position + LengthOf(static_cast<uint8_t>(text_[position]));
  }

 private:
  using Frame = RegexScratch::Frame;
  using Op = RegexInstruction::Op;

  static constexpr uint32_t kRestore = UINT32_MAX;
  // For all searches in a text: linear, as the published patterns are, with room for a backtrack
  // over each run of white space.
  static constexpr int64_t kFreeSteps = 10'000;
  static constexpr int64_t kStepsPerByte = 100;
  static constexpr size_t kMaxFrames = 2'000'000;

  // Of the character whose first byte this is.
  static size_t LengthOf(uint8_t byte) {
    return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
  }

  [[noreturn]] void Stop(std::string_view bound) const {
    Throw(ErrorKind::kResource, "{}: searching a text of {} bytes stopped: {}", where_,
          text_.size(), bound);
  }
  void Spend(size_t steps) {
    steps_left_ -= static_cast<int64_t>(steps);
    if (steps_left_ < 0) Stop("it takes more than 100 steps a byte");
  }
  void Push(Frame frame) {
    if (frames_.size() >= kMaxFrames) Stop("it keeps more than 2,000,000 ways back");
    frames_.push_back(frame);
  }

  bool CanBegin(int32_t first, size_t position) const {
    if (first < 0) return true;
    return position < text_.size() &&
           program_.first_bytes[static_cast<size_t>(first)][static_cast<uint8_t>(text_[position])];
  }

  // Moves `position` behind a character of `set`.
  bool Take(const CharacterClass& set, size_t& position) const {
    if (position >= text_.size()) return false;
    const auto byte = [&](size_t i) -> uint32_t {
      return static_cast<uint8_t>(text_[position + i]);
    };
    const uint32_t first = byte(0);
    if (first < 0x80) {
      if (!set.ContainsAscii(static_cast<uint8_t>(first))) return false;
      ++position;
      return true;
    }
    const size_t length = LengthOf(static_cast<uint8_t>(first));
    uint32_t c = length == 2 ? first & 0x1F : length == 3 ? first & 0x0F : first & 0x07;
    for (size_t i = 1; i < length; ++i) c = c << 6 | (byte(i) & 0x3F);
    if (!set.Contains(c)) return false;
    position += length;
    return true;
  }

  // Moves `position` left by a character. False at the begin of the text.
  bool StepBack(size_t& position) const {
    if (position == 0) return false;
    do --position;
    while ((text_[position] & 0xC0) == 0x80);
    return true;
  }

  // Takes up the way that was left last, down to frame `base`. False when there is none.
  bool Backtrack(size_t base, uint32_t& at, size_t& position) {
    while (frames_.size() > base) {
      Frame& frame = frames_.back();
      if (frame.instruction == kRestore) {
        registers_[frame.unit] = frame.position;
        frames_.pop_back();
        continue;
      }
      if (frame.position > frame.lowest) StepBack(frame.position);
      at = frame.instruction;
      position = frame.position;
      if (frame.position == frame.lowest) frames_.pop_back();
      return true;
    }
    return false;
  }

  // Matches from instruction `at` up to its kEnd. Leaves no frames above those it found, but for
  // registers to be restored.
  bool Run(uint32_t at, size_t position, size_t& end) {
    const size_t base = frames_.size();
    while (true) {
      Spend(1);
      const RegexInstruction& instruction = program_.instructions[at];
      if (instruction.op == Op::kEnd) {
        end = position;
        DropWays(base);
        return true;
      }
      if (!Execute(instruction, at, position) && !Backtrack(base, at, position)) return false;
    }
  }

  // Forgets the ways from `base` on, and keeps what an outer way needs to restore registers.
  void DropWays(size_t base) {
    const auto begin = frames_.begin() + static_cast<ptrdiff_t>(base);
    frames_.erase(std::remove_if(begin, frames_.end(),
                                 [](const Frame& frame) { return frame.instruction != kRestore; }),
                  frames_.end());
  }

  // One instruction. False: this way fails.
  bool Execute(const RegexInstruction& instruction, uint32_t& at, size_t& position) {
    switch (instruction.op) {
      case Op::kByte:
        if (position >= text_.size() || static_cast<uint8_t>(text_[position]) != instruction.index)
          return false;
        ++position;
        ++at;
        return true;
      case Op::kSet:
        ++at;
        return Take(program_.classes[instruction.index], position);
      case Op::kRepeatSet:
        ++at;
        return Repeat(instruction, at, position);
      case Op::kSplit:
        return Split(instruction, at, position);
      case Op::kJump:
        at = instruction.index;
        return true;
      case Op::kMark:
        Push({kRestore, instruction.index, registers_[instruction.index], 0});
        registers_[instruction.index] = position;
        ++at;
        return true;
      case Op::kMoved:
        at = registers_[instruction.index] == position ? instruction.other : at + 1;
        return true;
      case Op::kAtomic:
      case Op::kLookAhead:
      case Op::kLookBehind:
        at = instruction.other;
        return Part(instruction, position);
      case Op::kEnd:
        break;
    }
    return false;
  }

  bool Split(const RegexInstruction& instruction, uint32_t& at, size_t position) {
    const bool can_first = CanBegin(instruction.first_of_index, position);
    const bool can_other = CanBegin(instruction.first_of_other, position);
    if (can_first && can_other) Push({instruction.other, 0, position, position});
    at = can_first ? instruction.index : instruction.other;
    return can_first || can_other;
  }

  bool Repeat(const RegexInstruction& instruction, uint32_t next, size_t& position) {
    const CharacterClass& set = program_.classes[instruction.index];
    uint32_t count = 0;
    while (count < instruction.min && Take(set, position)) ++count;
    Spend(count);
    if (count < instruction.min) return false;
    const size_t lowest = position;
    while (count < instruction.max && Take(set, position)) ++count;
    Spend(count - instruction.min);
    if (instruction.gives_back && position > lowest) Push({next, 0, position, lowest});
    return true;
  }

  // kAtomic, kLookAhead or kLookBehind.
  bool Part(const RegexInstruction& instruction, size_t& position) {
    size_t start = position;
    for (uint32_t i = 0; i < instruction.min; ++i)
      if (!StepBack(start)) return instruction.is_negated;
    size_t end = position;
    const bool matches = Run(instruction.index, start, end);
    if (instruction.op != Op::kAtomic) return matches != instruction.is_negated;
    if (matches) position = end;
    return matches;
  }

  const RegexProgram& program_;
  std::string_view text_;
  const std::string& where_;
  std::vector<Frame>& frames_;
  std::vector<size_t>& registers_;
  int64_t steps_left_;
};

Regex::Regex(std::string_view pattern, std::string where)
    : where_(std::move(where)),
      program_(std::make_shared<const RegexProgram>(ParseRegex(pattern, where_), where_)) {}

Regex Regex::Literal(std::string_view text, std::string where) {
  WIDELOAD_CHECK(!text.empty(), "{}: an empty literal", where);
  Regex regex;
  regex.where_ = std::move(where);
  regex.literal_ = text;
  return regex;
}

std::vector<TextRange> Regex::FindAll(std::string_view text, RegexScratch& scratch) const {
  std::vector<TextRange> matches;
  if (program_ == nullptr) {
    for (size_t at = text.find(literal_); at != std::string_view::npos;
         at = text.find(literal_, at + literal_.size()))
      matches.push_back({at, at + literal_.size()});
    return matches;
  }
  Matcher matcher(*program_, text, where_, scratch);
  TextRange match;
  for (size_t start = 0; start <= text.size() && matcher.Find(start, match);) {
    const bool is_empty = match.begin == match.end;
    const bool touches = !matches.empty() && matches.back().end == match.begin;
    if (!(is_empty && touches)) matches.push_back(match);
    start = is_empty ? matcher.After(match.end) : match.end;
  }
  return matches;
}

}  // namespace wideload::tokenizer
