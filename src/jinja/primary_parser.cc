// The parts of expressions: names, literals, and what can be set.
#include <charconv>

#include "jinja/builtins.h"
#include "jinja/expression_parser.h"

namespace wideload::jinja {
namespace {

using Kind = Token::Kind;

}  // namespace

Expr ExpressionParser::Primary() {
  const int line = Now().line;
  if (Is(Kind::kName)) return Name();
  if (Is(Kind::kInteger) || Is(Kind::kFloat)) return Number();
  if (Is(Kind::kString)) {
    std::string text;
    for (; Is(Kind::kString); Next()) text += Now().text;
    Expr constant = Node(ExprKind::kConstant, line);
    constant.constant = Value::Text(std::move(text), false);
    return constant;
  }
  if (AcceptOperator("(")) {
    Expr tuple = Tuple({.in_parentheses = true});
    ExpectOperator(")");
    return tuple;
  }
  if (IsOperator("[")) return List();
  if (IsOperator("{")) return Dict();
  RefuseToken();
}

Expr ExpressionParser::Name() {
  const int line = Now().line;
  const std::string name = ExpectName();
  if (name == "none" || name == "None") {
    Expr constant = Node(ExprKind::kConstant, line);
    constant.constant.data = None{};
    return constant;
  }
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    Expr constant = Node(ExprKind::kConstant, line);
    constant.constant.data = name == "true" || name == "True";
    return constant;
  }
  Expr value = Node(ExprKind::kName, line);
  value.name = NameId(name);
  value.text = name;
  value.builtin = FindFunction(name);
  for (std::vector<std::string>& names : read_names_) names.push_back(name);
  return value;
}

Expr ExpressionParser::Number() {
  Expr constant = Node(ExprKind::kConstant, Now().line);
  std::string text = Now().text;
  std::erase(text, '_');
  if (Is(Kind::kFloat)) {
    double number = 0;
    if (std::from_chars(text.data(), text.data() + text.size(), number).ec != std::errc())
      Refuse(ErrorKind::kUnsupported, fmt::format("the number {} is not supported", text));
    constant.constant.data = number;
    Next();
    return constant;
  }
  int base = 10;
  const char letter = text.size() > 1 ? static_cast<char>(text[1] | 0x20) : '\0';
  if (letter == 'b') base = 2;
  if (letter == 'o') base = 8;
  if (letter == 'x') base = 16;
  const std::string digits = base == 10 ? text : text.substr(2);
  int64_t number = 0;
  const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), number, base);
  if (end.ec != std::errc())
    Refuse(ErrorKind::kUnsupported,
           fmt::format("the integer {} is beyond 64 bits, which is not supported", text));
  constant.constant.data = number;
  Next();
  return constant;
}

Expr ExpressionParser::List() {
  const Level level(*this);
  Expr list = Node(ExprKind::kList, Now().line);
  ExpectOperator("[");
  while (!IsOperator("]")) {
    if (!list.args.empty()) ExpectOperator(",");
    if (IsOperator("]")) break;
    Add(list, Expression());
  }
  Next();
  return list;
}

Expr ExpressionParser::Dict() {
  const Level level(*this);
  Expr dict = Node(ExprKind::kDict, Now().line);
  ExpectOperator("{");
  while (!IsOperator("}")) {
    if (!dict.args.empty()) ExpectOperator(",");
    if (IsOperator("}")) break;
    Add(dict, Expression());
    ExpectOperator(":");
    Add(dict, Expression());
  }
  Next();
  return dict;
}

Target ExpressionParser::OneTarget(bool with_attributes) {
  const Level level(*this);
  if (AcceptOperator("(")) {
    Target target = AssignTarget(with_attributes);
    ExpectOperator(")");
    return target;
  }
  if (with_attributes && Is(Kind::kName) && Is(Look(), Kind::kOperator, ".")) {
    Target target{.kind = Target::Kind::kAttribute, .name = NameId(ExpectName())};
    Next();
    target.attribute = ExpectName();
    return target;
  }
  return {.kind = Target::Kind::kName, .name = NameTarget()};
}

int ExpressionParser::NameTarget() {
  for (const std::string_view name : {"true", "false", "none", "True", "False", "None"})
    if (IsWord(name)) Refuse(ErrorKind::kCorrupt, fmt::format("\"{}\" cannot be set", name));
  return NameId(ExpectName());
}

Target ExpressionParser::AssignTarget(bool with_attributes, std::string_view end) {
  Target tuple{.kind = Target::Kind::kTuple};
  bool is_tuple = false;
  while (true) {
    if (!tuple.items.empty()) ExpectOperator(",");
    if (IsTupleEnd(end)) break;
    tuple.items.push_back(OneTarget(with_attributes));
    if (!IsOperator(",")) break;
    is_tuple = true;
  }
  if (is_tuple) return tuple;
  if (tuple.items.empty()) RefuseToken();
  Target only = std::move(tuple.items[0]);
  return only;
}

}  // namespace wideload::jinja
