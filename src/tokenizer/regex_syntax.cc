#include "tokenizer/regex_syntax.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>

#include "base/error.h"
#include "tokenizer/unicode.h"
#include "tokenizer/unicode_properties.h"

namespace wideload::tokenizer {
namespace {

using Kind = RegexNode::Kind;
using Mode = RegexNode::Mode;

constexpr size_t kMaxPatternBytes = 16384;
constexpr uint32_t kMaxCount = 1000;
constexpr int kMaxNesting = 50;
constexpr uint32_t kMaxLookBehind = 255;  // characters

CodePointSet Single(uint32_t c) { return CodePointSet({{c, c}}); }

CodePointSet WhiteSpace() {
  return CodePointSet({{0x09, 0x0D},
                       {0x20, 0x20},
                       {0x85, 0x85},
                       {0xA0, 0xA0},
                       {0x1680, 0x1680},
                       {0x2000, 0x200A},
                       {0x2028, 0x2029},
                       {0x202F, 0x202F},
                       {0x205F, 0x205F},
                       {0x3000, 0x3000}});
}

// \w: what IsWordCharacter tells, without the two joiners, which Oniguruma leaves out.
const CodePointSet& WordCharacters() {
  static const CodePointSet all = [] {
    CodePointSet result(
        {{0x24B6, 0x24E9}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}});
    for (const std::string_view name : {"L", "M", "Nd", "Nl", "Pc"})
      result = result.Or(*PropertyNamed(name));
    return result;
  }();
  return all;
}

class Parser {
 public:
  Parser(std::string_view pattern, const std::string& where) : pattern_(pattern), where_(where) {}

  RegexNode Parse() {
    RegexNode node = Choice();
    if (!AtEnd()) Corrupt("an unmatched )");
    return node;
  }

 private:
  [[noreturn]] void Refuse(std::string_view construct) const {
    Throw(ErrorKind::kUnsupported,
          "{}: the regular expression has {} at byte {}; supported are literals, classes, \\p \\P "
          "\\s \\S \\d \\D \\w \\W, groups ( (?: (?i: (?> (?= (?! (?<= (?<!, alternatives and the "
          "quantifiers * + ? {{n}} {{n,}} {{n,m}}",
          where_, construct, position_);
  }
  [[noreturn]] void Corrupt(std::string_view what) const {
    Throw(ErrorKind::kCorrupt, "{} is no regular expression: {} at byte {} of {}", where_, what,
          position_, pattern_);
  }

  bool AtEnd() const { return position_ >= pattern_.size(); }
  char Peek(size_t ahead = 0) const {
    return position_ + ahead < pattern_.size() ? pattern_[position_ + ahead] : '\0';
  }
  bool Take(std::string_view text) {
    if (!pattern_.substr(position_).starts_with(text)) return false;
    position_ += text.size();
    return true;
  }

  RegexNode Choice() {
    RegexNode choice{.kind = Kind::kChoice};
    do choice.children.push_back(Row());
    while (Take("|"));
    if (choice.children.size() == 1) return std::move(choice.children[0]);
    return choice;
  }

  RegexNode Row() {
    RegexNode row{.kind = Kind::kRow};
    while (!AtEnd() && Peek() != '|' && Peek() != ')') row.children.push_back(Quantified(Atom()));
    if (row.children.empty()) return {};
    if (row.children.size() == 1) return std::move(row.children[0]);
    return row;
  }

  RegexNode Atom() {
    switch (Peek()) {
      case '(':
        return Group();
      case '[':
        ++position_;
        return SetNode(Class());
      case '.':
        ++position_;
        return SetNode(Single('\n').Complement());
      case '\\':
        return SetNode(Escape());
      case '^':
      case '$':
        Refuse("an anchor");
      case '*':
      case '+':
      case '?':
        Corrupt("a quantifier of nothing");
      case '{':
        Refuse("{ that is no {n}, {n,} or {n,m}");
      default:
        return SetNode(WithOtherCase(Single(Character())));
    }
  }

  static RegexNode SetNode(CodePointSet set) { return {.kind = Kind::kSet, .set = std::move(set)}; }

  // The character here, which may be any but an escape.
  uint32_t Character() {
    const Utf8Unit unit = Utf8At(pattern_, position_);
    if (!unit.is_valid) Corrupt("ill-formed UTF-8");
    position_ += unit.length;
    return unit.code_point;
  }

  RegexNode Group() {
    if (++nesting_ > kMaxNesting) Refuse("groups and classes nested too deeply");
    const bool ignored_case = ignores_case_;
    RegexNode node = OpenGroup();
    node.children.push_back(Choice());
    if (!Take(")")) Corrupt("a group without )");
    ignores_case_ = ignored_case;
    --nesting_;
    if (node.kind == Kind::kLookBehind) return LookBehind(node);
    if (node.kind == Kind::kEmpty) return std::move(node.children[0]);
    return node;
  }

  // A node that waits for its child; kEmpty: the group is its child.
  RegexNode OpenGroup() {
    if (Take("(?:")) return {};
    if (Take("(?>")) return {.kind = Kind::kAtomic};
    if (Take("(?=")) return {.kind = Kind::kLookAhead};
    if (Take("(?!")) return {.kind = Kind::kLookAhead, .is_negated = true};
    if (Take("(?<=")) return {.kind = Kind::kLookBehind};
    if (Take("(?<!")) return {.kind = Kind::kLookBehind, .is_negated = true};
    if (Take("(?i:")) {
      ignores_case_ = true;
      return {};
    }
    if (Peek(1) == '?') Refuse(fmt::format("the group {}", pattern_.substr(position_, 3)));
    if (Peek(1) == '*') Refuse("a control verb (*");
    ++position_;
    return {};  // nobody asks what a group captured
  }

  // One look-behind for each alternative: they may have different lengths.
  RegexNode LookBehind(const RegexNode& node) const {
    const RegexNode& child = node.children[0];
    const std::vector<RegexNode> alternatives =
        child.kind == Kind::kChoice ? child.children : std::vector<RegexNode>{child};
    RegexNode result{.kind = node.is_negated ? Kind::kRow : Kind::kChoice};
    for (const RegexNode& alternative : alternatives) {
      const std::optional<uint32_t> length = FixedLength(alternative);
      if (!length || *length > kMaxLookBehind)
        Refuse("a look-behind whose length is not fixed, or is above 255");
      result.children.push_back({.kind = Kind::kLookBehind,
                                 .children = {alternative},
                                 .min = *length,
                                 .max = *length,
                                 .is_negated = node.is_negated});
    }
    return result;
  }

  // Characters that every match of `node` has; nothing if that varies.
  static std::optional<uint32_t> FixedLength(const RegexNode& node) {
    switch (node.kind) {
      case Kind::kSet:
        return 1;
      case Kind::kEmpty:
      case Kind::kLookAhead:
      case Kind::kLookBehind:
        return 0;
      case Kind::kAtomic:
        return FixedLength(node.children[0]);
      case Kind::kRepeat: {
        const auto length = FixedLength(node.children[0]);
        if (!length || node.min != node.max || *length > kMaxPatternBytes) return std::nullopt;
        return *length * node.min;
      }
      case Kind::kRow: {
        uint32_t sum = 0;
        for (const RegexNode& child : node.children) {
          const auto length = FixedLength(child);
          if (!length) return std::nullopt;
          sum += std::min<uint32_t>(*length, kMaxLookBehind + 1);
        }
        return sum;
      }
      case Kind::kChoice: {
        const auto length = FixedLength(node.children[0]);
        for (const RegexNode& child : node.children)
          if (FixedLength(child) != length) return std::nullopt;
        return length;
      }
    }
    return std::nullopt;
  }

  RegexNode Quantified(RegexNode atom) {
    const char c = Peek();
    if (AtEnd() || (c != '*' && c != '+' && c != '?' && c != '{')) return atom;
    RegexNode repeat{.kind = Kind::kRepeat, .min = 0, .max = RegexNode::kUnbounded};
    if (c == '{') {
      Counts(repeat);
    } else {
      ++position_;
      if (c == '+') repeat.min = 1;
      if (c == '?') repeat.max = 1;
      if (Take("+"))
        repeat.mode = Mode::kPossessive;
      else if (Take("?"))
        repeat.mode = Mode::kLazy;
    }
    if (Peek() == '*' || Peek() == '+' || Peek() == '?' || Peek() == '{')
      Refuse("a quantifier of a quantifier");
    repeat.children.push_back(std::move(atom));
    return repeat;
  }

  void Counts(RegexNode& repeat) {
    const size_t close = pattern_.find('}', position_);
    const std::string_view inside = close == std::string_view::npos
                                        ? std::string_view()
                                        : pattern_.substr(position_ + 1, close - position_ - 1);
    const size_t comma = inside.find(',');
    const auto count = [&](std::string_view digits, uint32_t fallback) {
      if (digits.empty()) return fallback;
      uint32_t value = 0;
      const char* end = digits.data() + digits.size();
      const auto [stop, error] = std::from_chars(digits.data(), end, value);
      if (error == std::errc::result_out_of_range || (stop == end && value > kMaxCount))
        Refuse(fmt::format("a count above {}", kMaxCount));
      if (stop != end || error != std::errc()) Refuse("{ that is no {n}, {n,} or {n,m}");
      return value;
    };
    if (inside.empty() || comma == 0) Refuse("{ that is no {n}, {n,} or {n,m}");
    repeat.min = count(inside.substr(0, comma), 0);
    repeat.max = comma == std::string_view::npos
                     ? repeat.min
                     : count(inside.substr(comma + 1), RegexNode::kUnbounded);
    if (repeat.max < repeat.min) Corrupt("a range of counts that is empty");
    position_ = close + 1;
    // In Ruby's syntax {n,m}+ is a second quantifier, and so is {n}?.
    if (Peek() == '+') Refuse("}+");
    if (Peek() == '?' && comma == std::string_view::npos) Refuse("{n}?");
    if (Take("?")) repeat.mode = Mode::kLazy;
  }

  CodePointSet Escape() {
    const char c = Peek(1);
    // Outside of classes Oniguruma counts six signs of Latin-1 as letters of words.
    if (c == 'w' || c == 'W') {
      position_ += 2;
      const CodePointSet word =
          WordCharacters().Or(CodePointSet({{0xB2, 0xB3}, {0xB9, 0xB9}, {0xBC, 0xBE}}));
      return c == 'w' ? word : word.Complement();
    }
    if (c == 'p' || c == 'P') return Property();
    const std::optional<CodePointSet> named = NamedClass(c);
    if (named) {
      position_ += 2;
      return *named;
    }
    return WithOtherCase(Single(EscapedCharacter()));
  }

  static std::optional<CodePointSet> NamedClass(char c) {
    switch (c) {
      case 's':
        return WhiteSpace();
      case 'S':
        return WhiteSpace().Complement();
      case 'd':
        return *PropertyNamed("Nd");
      case 'D':
        return PropertyNamed("Nd")->Complement();
      case 'w':
        return WordCharacters();
      case 'W':
        return WordCharacters().Complement();
      default:
        return std::nullopt;
    }
  }

  uint32_t EscapedCharacter() {
    const char c = Peek(1);
    constexpr std::string_view kLetters = "rntf";
    constexpr std::string_view kMeanings = "\r\n\t\f";
    if (const size_t at = kLetters.find(c); c != '\0' && at != std::string_view::npos) {
      position_ += 2;
      return static_cast<uint8_t>(kMeanings[at]);
    }
    if (c == 'u') return HexCharacter(pattern_.substr(position_ + 2, 4), position_ + 6);
    if (c == 'x' && Peek(2) == '{') {
      const size_t close = std::min(pattern_.find('}', position_), pattern_.size());
      return HexCharacter(pattern_.substr(position_ + 3, close - position_ - 3), close + 1);
    }
    if (c == '\0' || !std::ispunct(static_cast<unsigned char>(c)))
      Refuse(fmt::format("the escape {}", pattern_.substr(position_, 2)));
    position_ += 2;
    return static_cast<uint8_t>(c);
  }

  uint32_t HexCharacter(std::string_view digits, size_t end) {
    uint32_t value = 0;
    const char* stop = digits.data() + digits.size();
    const bool is_number = std::from_chars(digits.data(), stop, value, 16).ptr == stop;
    if (!is_number || digits.size() < 2 || digits.size() > 6 || end > pattern_.size() ||
        value > kMaxCodePoint || (value >= 0xD800 && value <= 0xDFFF))
      Corrupt("an escape without the number of a character");
    position_ = end;
    return value;
  }

  // \p{Name}, \P{Name}, \p{^Name}.
  CodePointSet Property() {
    const size_t close = pattern_.find('}', position_);
    if (Peek(2) != '{' || close == std::string_view::npos) Refuse("\\p without {name}");
    std::string_view name = pattern_.substr(position_ + 3, close - position_ - 3);
    const bool is_negated = name.starts_with('^') != (Peek(1) == 'P');
    if (name.starts_with('^')) name.remove_prefix(1);
    if (ignores_case_) Refuse("\\p in (?i:");
    const CodePointSet* set = PropertyNamed(name);
    if (set == nullptr) Refuse(fmt::format("the property {}", name));
    position_ = close + 1;
    return is_negated ? set->Complement() : *set;
  }

  // The rest of a class, behind its [.
  CodePointSet Class() {
    if (++nesting_ > kMaxNesting) Refuse("groups and classes nested too deeply");
    const bool is_negated = Take("^");
    if (Peek() == ']') Refuse("] as the first character of a class");
    if (Peek() == ':') Refuse("a bracket [:");
    CodePointSet set = Union();
    while (Take("&&")) set = set.And(Union());
    if (!Take("]")) Corrupt("a class without ]");
    --nesting_;
    return is_negated ? set.Complement() : set;
  }

  // Members up to && or the end of the class.
  CodePointSet Union() {
    CodePointSet set;
    while (!AtEnd() && Peek() != ']' && !pattern_.substr(position_).starts_with("&&"))
      set = set.Or(Member());
    return set;
  }

  // A class, or a range of characters, or one.
  CodePointSet Member() {
    if (Take("[")) return Class();
    const char escaped = Peek() == '\\' ? Peek(1) : '\0';
    const std::optional<CodePointSet> named = NamedClass(escaped);
    if (escaped == 'p' || escaped == 'P' || named) {
      if (named) position_ += 2;
      CodePointSet set = named ? *named : Property();
      if (Peek() == '-' && Peek(1) != ']') Refuse("- behind a class");
      return set;
    }
    const uint32_t first = ClassCharacter();
    if (Peek() != '-' || Peek(1) == ']' || Peek(1) == '\0') return WithOtherCase(Single(first));
    ++position_;
    if (Peek() == '[' || (Peek() == '\\' && (NamedClass(Peek(1)) || Peek(1) == 'p')))
      Refuse("- before a class");
    const uint32_t last = ClassCharacter();
    if (last < first) Corrupt("a range of characters that is empty");
    return WithOtherCase(CodePointSet({{first, last}}));
  }

  uint32_t ClassCharacter() { return Peek() == '\\' ? EscapedCharacter() : Character(); }

  // In (?i: the set with its letters of the other case. Only ASCII letters have one here, and the
  // two that fold to them: U+017F to s, U+212A to k.
  CodePointSet WithOtherCase(const CodePointSet& set) const {
    if (!ignores_case_) return set;
    const CodePointSet::Range last =
        set.ranges().empty() ? CodePointSet::Range{0, 0} : set.ranges().back();
    if (last.last > 0x7F) Refuse("a character beyond ASCII in (?i:");
    CodePointSet result = set;
    for (uint32_t c = 'a'; c <= 'z'; ++c)
      if (set.Contains(c) || set.Contains(c - 32))
        result = result.Or(CodePointSet({{c, c}, {c - 32, c - 32}}));
    if (result.Contains('s')) result = result.Or(Single(0x17F));
    if (result.Contains('k')) result = result.Or(Single(0x212A));
    return result;
  }

  std::string_view pattern_;
  const std::string& where_;
  size_t position_ = 0;
  bool ignores_case_ = false;
  int nesting_ = 0;
};

}  // namespace

RegexNode ParseRegex(std::string_view pattern, const std::string& where) {
  if (pattern.size() > kMaxPatternBytes)
    Throw(ErrorKind::kUnsupported, "{} has {} bytes; it must have at most {}", where,
          pattern.size(), kMaxPatternBytes);
  return Parser(pattern, where).Parse();
}

}  // namespace wideload::tokenizer
