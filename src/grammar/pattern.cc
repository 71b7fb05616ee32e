#include "grammar/pattern.h"

#include <utility>
#include <vector>

#include "base/error.h"
#include "tokenizer/regex_syntax.h"

namespace wideload::grammar {
namespace {

using tokenizer::CodePointSet;
using tokenizer::RegexNode;

// \d, \w and \s know Unicode in Oniguruma, and ASCII only in ECMA 262.
std::string WithAsciiClasses(std::string_view pattern) {
  std::string result;
  bool is_in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char letter = pattern[++i];
      const std::string members = letter == 'd'   ? "0-9"
                                  : letter == 'w' ? "A-Za-z0-9_"
                                  : letter == 's' ? " \t\n\r\f\v"
                                  : letter == '/' ? "/"
                                                  : "";
      if (letter == '/')
        result += '/';
      else if (members.empty())
        result += {'\\', letter};
      else
        result += is_in_class ? members : "[" + members + "]";
      continue;
    }
    if (c == '[') is_in_class = true;
    if (c == ']') is_in_class = false;
    result += c;
  }
  return result;
}

class PatternWriter {
 public:
  PatternWriter(const std::string& where, GrammarBuilder& builder, const WriteCharacter& write)
      : where_(where), builder_(builder), write_(write) {}

  ExpressionId Write(const RegexNode& node) {
    using Kind = RegexNode::Kind;
    switch (node.kind) {
      case Kind::kEmpty:
        return builder_.Empty();
      case Kind::kSet:
        return write_(node.set == NoLineEnd() ? Dot() : node.set);
      case Kind::kRow:
        return builder_.Row(WriteAll(node));
      case Kind::kChoice:
        return builder_.Choice(WriteAll(node));
      case Kind::kRepeat:
        if (node.mode == RegexNode::Mode::kPossessive) Refuse("a possessive repetition");
        return Repeat(node);
      case Kind::kAtomic:
        Refuse("an atomic group");
      case Kind::kLookAhead:
      case Kind::kLookBehind:
        Refuse("an assertion");
    }
    return builder_.Empty();
  }

  // Any text, of the characters that . has and those that it has not.
  ExpressionId Anything() {
    const CodePointSet all({{0, tokenizer::kMaxCodePoint}});
    return builder_.Repeat(write_(all), 0, GrammarBuilder::kUnbounded);
  }

 private:
  static CodePointSet NoLineEnd() { return CodePointSet({{'\n', '\n'}}).Complement(); }
  static CodePointSet Dot() {
    return CodePointSet({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}).Complement();
  }

  [[noreturn]] void Refuse(std::string_view what) const {
    Throw(ErrorKind::kUnsupported, "{}: the regular expression has {}, which is not supported",
          where_, what);
  }

  ExpressionId Repeat(const RegexNode& node) {
    const uint32_t max = node.max == RegexNode::kUnbounded ? GrammarBuilder::kUnbounded : node.max;
    if (node.min > kMaxCount || (max != GrammarBuilder::kUnbounded && max > kMaxCount))
      Throw(ErrorKind::kUnsupported, "{}: the regular expression has a count above {}", where_,
            kMaxCount);
    return builder_.Repeat(Write(node.children.front()), node.min, max);
  }

  std::vector<ExpressionId> WriteAll(const RegexNode& node) {
    std::vector<ExpressionId> parts;
    for (const RegexNode& child : node.children) parts.push_back(Write(child));
    return parts;
  }

  const std::string& where_;
  GrammarBuilder& builder_;
  const WriteCharacter& write_;
};

bool EndsWithAnchor(std::string_view pattern) {
  if (!pattern.ends_with('$')) return false;
  size_t num_slashes = 0;
  while (num_slashes + 1 < pattern.size() && pattern[pattern.size() - 2 - num_slashes] == '\\')
    ++num_slashes;
  return num_slashes % 2 == 0;
}

// Whether the whole is a choice, which an anchor at its begin or end would not be of.
bool HasAlternatives(std::string_view pattern) {
  int depth = 0;
  bool is_in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\') ++i;
    if (c == '[') is_in_class = true;
    if (c == ']') is_in_class = false;
    if (is_in_class) continue;
    depth += c == '(' ? 1 : c == ')' ? -1 : 0;
    if (c == '|' && depth == 0) return true;
  }
  return false;
}

}  // namespace

ExpressionId PatternExpression(std::string_view pattern, const std::string& where, bool is_search,
                               GrammarBuilder& builder, const WriteCharacter& write) {
  std::string_view inner = pattern;
  const bool is_begun = inner.starts_with('^');
  if (is_begun) inner.remove_prefix(1);
  const bool is_ended = EndsWithAnchor(inner);
  if (is_ended) inner.remove_suffix(1);
  const RegexNode root = tokenizer::ParseRegex(WithAsciiClasses(inner), where);
  if ((is_begun || is_ended) && HasAlternatives(inner))
    Throw(ErrorKind::kUnsupported,
          "{}: an anchor of one alternative is not supported; write ^(?:...)$", where);
  PatternWriter writer(where, builder, write);
  std::vector<ExpressionId> parts;
  if (is_search && !is_begun) parts.push_back(writer.Anything());
  parts.push_back(writer.Write(root));
  if (is_search && !is_ended) parts.push_back(writer.Anything());
  return builder.Row(std::move(parts));
}

}  // namespace wideload::grammar
