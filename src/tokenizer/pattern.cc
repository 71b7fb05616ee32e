// Translation of Oniguruma patterns (Ruby syntax) for PCRE2: what both read alike passes, \s and \S
// are spelled out, the rest is refused.
#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "tokenizer/regex.h"

namespace wideload::tokenizer {
namespace {

// Property White_Space. PCRE2's own \s has U+180E too.
constexpr std::string_view kWhiteSpace =
    R"(\x{9}-\x{D}\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

class PatternTranslator {
 public:
  PatternTranslator(std::string_view pattern, const std::string& where)
      : pattern_(pattern), where_(where) {}

  std::string Translate() {
    while (position_ < pattern_.size()) {
      if (in_class_)
        InsideClass();
      else
        OutsideClass();
    }
    return std::move(result_);
  }

 private:
  [[noreturn]] void Refuse(std::string_view construct) const {
    Throw(ErrorKind::kUnsupported,
          "{}: the regular expression has {} at byte {}; supported are literals, classes without "
          "nesting, \\p \\P \\s \\S \\d \\D, groups (?: (?i: (?> (?= (?! (?<= (?<!, alternatives "
          "and the quantifiers * + ? {{n}} {{n,}} {{n,m}}",
          where_, construct, position_);
  }

  char Peek(size_t ahead = 0) const {
    return position_ + ahead < pattern_.size() ? pattern_[position_ + ahead] : '\0';
  }
  bool StartsWith(std::string_view text) const {
    return pattern_.substr(position_).substr(0, text.size()) == text;
  }
  void Copy(size_t count) {
    result_ += pattern_.substr(position_, count);
    position_ += count;
  }

  void OutsideClass() {
    switch (Peek()) {
      case '\\':
        return Escape();
      case '[':
        return OpenClass();
      case '(':
        return OpenGroup();
      case '{':
        return Braces();
      case '^':
      case '$':
        Refuse("an anchor");
      default:
        return Copy(1);
    }
  }

  void InsideClass() {
    if (Peek() == '\\') return Escape();
    if (Peek() == '[') Refuse("a class within a class");
    if (StartsWith("&&")) Refuse("the intersection &&");
    // PCRE2 takes the first ] of a class literally, Oniguruma only where no other follows.
    if (Peek() == ']' && class_is_empty_) Refuse("] as the first character of a class");
    if (Peek() == ']') in_class_ = false;
    class_is_empty_ = false;
    Copy(1);
  }

  void OpenClass() {
    Copy(Peek(1) == '^' ? 2 : 1);
    in_class_ = true;
    class_is_empty_ = true;
  }

  void OpenGroup() {
    if (Peek(1) == '*') Refuse("a control verb (*");
    if (Peek(1) != '?') return Copy(1);
    for (const std::string_view known : {"(?:", "(?i:", "(?>", "(?=", "(?!", "(?<=", "(?<!"})
      if (StartsWith(known)) return Copy(known.size());
    Refuse(fmt::format("the group {}", pattern_.substr(position_, 3)));
  }

  void Braces() {
    const size_t close = pattern_.find('}', position_);
    const std::string_view inside = close == std::string_view::npos
                                        ? std::string_view()
                                        : pattern_.substr(position_ + 1, close - position_ - 1);
    const bool is_count = !inside.empty() && std::isdigit(static_cast<unsigned char>(inside[0])) &&
                          std::count(inside.begin(), inside.end(), ',') <= 1 &&
                          std::all_of(inside.begin(), inside.end(), [](char c) {
                            return c == ',' || std::isdigit(static_cast<unsigned char>(c));
                          });
    if (!is_count) Refuse("{ that is no {n}, {n,} or {n,m}");
    Copy(inside.size() + 2);
    // Possessive in PCRE2, a second quantifier in Oniguruma.
    if (Peek() == '+') Refuse("}+");
    if (Peek() == '?' && inside.find(',') == std::string_view::npos) Refuse("{n}?");
  }

  void Escape() {
    const char c = Peek(1);
    const bool was_empty = class_is_empty_;
    class_is_empty_ = false;
    if (c == 's' || c == 'S') return WhiteSpace(c == 'S');
    if (c == 'p' || c == 'P') return Property();
    const bool is_plain = std::string_view("dDrntf").find(c) != std::string_view::npos ||
                          (c != '\0' && std::ispunct(static_cast<unsigned char>(c)));
    if (is_plain) return Copy(2);
    class_is_empty_ = was_empty;
    Refuse(fmt::format("the escape {}", pattern_.substr(position_, 2)));
  }

  void WhiteSpace(bool is_negated) {
    if (in_class_ && is_negated) Refuse("\\S within a class");
    if (!in_class_) result_ += is_negated ? "[^" : "[";
    result_ += kWhiteSpace;
    if (!in_class_) result_ += "]";
    position_ += 2;
  }

  // \p{Name}; PCRE2 knows the names of categories and scripts and refuses others.
  void Property() {
    const size_t close = pattern_.find('}', position_);
    if (Peek(2) != '{' || close == std::string_view::npos) Refuse("\\p without {name}");
    Copy(close + 1 - position_);
  }

  std::string_view pattern_;
  const std::string& where_;
  size_t position_ = 0;
  bool in_class_ = false;
  bool class_is_empty_ = false;
  std::string result_;
};

}  // namespace

std::string TranslatePattern(std::string_view pattern, const std::string& where) {
  return PatternTranslator(pattern, where).Translate();
}

}  // namespace wideload::tokenizer
