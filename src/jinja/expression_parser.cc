#include "jinja/expression_parser.h"

#include <algorithm>

#include "jinja/builtins.h"

namespace wideload::jinja {
namespace {

constexpr int kMaxLevel = 100;      // of tags, brackets and operators within each other
constexpr int kMaxTreeDepth = 256;  // a row of operators makes a deep tree

using Kind = Token::Kind;

}  // namespace

ExpressionParser::Level::Level(ExpressionParser& p) : parser(p) {
  if (++parser.level_ > kMaxLevel)
    parser.Refuse(ErrorKind::kUnsupported,
                  fmt::format("nesting deeper than {} is not supported", kMaxLevel));
}

void ExpressionParser::Refuse(ErrorKind kind, const std::string& what) const {
  Throw(kind, "{}: line {}: {}", source_, Now().line, what);
}

void ExpressionParser::RefuseToken() const {
  switch (Now().kind) {
    case Kind::kEnd:
      Refuse(ErrorKind::kCorrupt, "the template ends where more must follow");
    case Kind::kOutputEnd:
    case Kind::kBlockEnd:
      Refuse(ErrorKind::kCorrupt, "the end of the tag is not expected here");
    case Kind::kString:
      Refuse(ErrorKind::kCorrupt, "a string is not expected here");
    default:
      Refuse(ErrorKind::kCorrupt, fmt::format("\"{}\" is not expected here", Now().text));
  }
}

bool ExpressionParser::AcceptOperator(std::string_view text) {
  if (!IsOperator(text)) return false;
  Next();
  return true;
}

bool ExpressionParser::AcceptWord(std::string_view text) {
  if (!IsWord(text)) return false;
  Next();
  return true;
}

void ExpressionParser::ExpectOperator(std::string_view text) {
  if (!AcceptOperator(text)) RefuseToken();
}

std::string ExpressionParser::ExpectName() {
  if (!Is(Kind::kName)) RefuseToken();
  std::string name = Now().text;
  Next();
  return name;
}

int ExpressionParser::NameId(const std::string& name) {
  const auto [entry, is_new] = name_ids_.emplace(name, static_cast<int>(names_.size()));
  if (is_new) names_.push_back(name);
  return entry->second;
}

Expr ExpressionParser::Node(ExprKind kind, int line) const {
  Expr node;
  node.kind = kind;
  node.line = line;
  return node;
}

void ExpressionParser::Add(Expr& parent, Expr child) const {
  parent.depth = std::max(parent.depth, child.depth + 1);
  if (parent.depth > kMaxTreeDepth)
    Refuse(ErrorKind::kUnsupported,
           fmt::format("an expression of depth over {} is not supported", kMaxTreeDepth));
  parent.args.push_back(std::move(child));
}

Expr ExpressionParser::Parent(ExprKind kind, int line, Expr child) const {
  Expr parent = Node(kind, line);
  Add(parent, std::move(child));
  return parent;
}

bool ExpressionParser::IsTupleEnd(std::string_view end) const {
  return Is(Kind::kOutputEnd) || Is(Kind::kBlockEnd) || IsOperator(")") ||
         (!end.empty() && IsWord(end));
}

Expr ExpressionParser::Tuple(const TupleRules& rules) {
  const Level level(*this);
  Expr tuple = Node(ExprKind::kTuple, Now().line);
  bool is_tuple = false;
  while (true) {
    if (!tuple.args.empty()) ExpectOperator(",");
    if (IsTupleEnd(rules.end)) break;
    Add(tuple, rules.with_conditional ? Expression() : Or());
    if (!IsOperator(",")) break;
    is_tuple = true;
  }
  if (is_tuple) return tuple;
  if (!tuple.args.empty()) {
    Expr only = std::move(tuple.args[0]);
    return only;
  }
  if (!rules.in_parentheses) RefuseToken();
  return tuple;
}

Expr ExpressionParser::Expression() {
  const Level level(*this);
  const size_t num_unknown = unknown_.size();
  Expr value = Or();
  while (IsWord("if")) {
    const int line = Now().line;
    Next();
    Expr conditional = Parent(ExprKind::kConditional, line, Or());
    Add(conditional, std::move(value));
    if (AcceptWord("else")) Add(conditional, Expression());
    value = std::move(conditional);
    unknown_.resize(num_unknown);
  }
  return value;
}

Expr ExpressionParser::Or() {
  Expr left = And();
  while (IsWord("or")) {
    const int line = Now().line;
    Next();
    left = Parent(ExprKind::kOr, line, std::move(left));
    Add(left, And());
  }
  return left;
}

Expr ExpressionParser::And() {
  Expr left = Not();
  while (IsWord("and")) {
    const int line = Now().line;
    Next();
    left = Parent(ExprKind::kAnd, line, std::move(left));
    Add(left, Not());
  }
  return left;
}

Expr ExpressionParser::Not() {
  const Level level(*this);
  const int line = Now().line;
  if (AcceptWord("not")) return Parent(ExprKind::kNot, line, Not());
  return Compare();
}

std::optional<Operator> ExpressionParser::CompareOperator() {
  static constexpr std::pair<std::string_view, Operator> kOperators[] = {
      {"==", Operator::kEqual},     {"!=", Operator::kNotEqual}, {"<", Operator::kLess},
      {"<=", Operator::kLessEqual}, {">", Operator::kGreater},   {">=", Operator::kGreaterEqual}};
  for (const auto& [text, op] : kOperators)
    if (AcceptOperator(text)) return op;
  if (AcceptWord("in")) return Operator::kIn;
  if (!IsWord("not") || !Is(Look(), Kind::kName, "in")) return std::nullopt;
  Next();
  Next();
  return Operator::kNotIn;
}

Expr ExpressionParser::Compare() {
  const int line = Now().line;
  Expr first = Sum();
  std::optional<Operator> op = CompareOperator();
  if (!op) return first;
  Expr compare = Parent(ExprKind::kCompare, line, std::move(first));
  for (; op; op = CompareOperator()) {
    compare.operators.push_back(*op);
    Add(compare, Sum());
  }
  return compare;
}

// A row of operators of one precedence.
template <class Operand>
Expr ExpressionParser::LeftToRight(
    std::initializer_list<std::pair<std::string_view, Operator>> operators, Operand operand) {
  Expr left = operand();
  while (true) {
    const auto found = std::find_if(operators.begin(), operators.end(),
                                    [&](const auto& op) { return IsOperator(op.first); });
    if (found == operators.end()) return left;
    const int line = Now().line;
    Next();
    left = Parent(ExprKind::kArithmetic, line, std::move(left));
    left.operators.push_back(found->second);
    Add(left, operand());
  }
}

Expr ExpressionParser::Sum() {
  return LeftToRight({{"+", Operator::kAdd}, {"-", Operator::kSubtract}}, [&] { return Concat(); });
}

Expr ExpressionParser::Concat() {
  const int line = Now().line;
  Expr first = Product();
  if (!IsOperator("~")) return first;
  Expr concat = Parent(ExprKind::kConcat, line, std::move(first));
  while (AcceptOperator("~")) Add(concat, Product());
  return concat;
}

Expr ExpressionParser::Product() {
  return LeftToRight({{"*", Operator::kMultiply},
                      {"/", Operator::kDivide},
                      {"//", Operator::kFloorDivide},
                      {"%", Operator::kModulo}},
                     [&] { return Power(); });
}

Expr ExpressionParser::Power() {
  return LeftToRight({{"**", Operator::kPower}}, [&] { return Unary(true); });
}

Expr ExpressionParser::Unary(bool with_filter) {
  const Level level(*this);
  const int line = Now().line;
  Expr value;
  if (AcceptOperator("-"))
    value = Parent(ExprKind::kNegate, line, Unary(false));
  else if (AcceptOperator("+"))
    value = Parent(ExprKind::kPlus, line, Unary(false));
  else
    value = Primary();
  value = Postfix(std::move(value));
  return with_filter ? FilterOrTest(std::move(value)) : std::move(value);
}

Expr ExpressionParser::Postfix(Expr value) {
  while (true) {
    if (IsOperator(".") || IsOperator("["))
      value = Subscript(std::move(value));
    else if (IsOperator("("))
      value = Call(std::move(value));
    else
      return value;
  }
}

Expr ExpressionParser::FilterOrTest(Expr value) {
  while (true) {
    if (IsOperator("|"))
      value = FilterChain(std::move(value), false);
    else if (IsWord("is"))
      value = Test(std::move(value));
    else if (IsOperator("("))
      value = Call(std::move(value));
    else
      return value;
  }
}

Expr ExpressionParser::Subscript(Expr value) {
  const Level level(*this);
  const int line = Now().line;
  if (AcceptOperator(".")) {
    if (Is(Kind::kName)) {
      Expr attribute = Parent(ExprKind::kAttribute, line, std::move(value));
      attribute.text = ExpectName();
      return attribute;
    }
    if (!Is(Kind::kInteger)) RefuseToken();
    Expr item = Parent(ExprKind::kItem, line, std::move(value));
    Add(item, Number());
    return item;
  }
  ExpectOperator("[");
  Expr item = Subscribed(std::move(value));
  if (!IsOperator(",")) {
    ExpectOperator("]");
    return item;
  }
  if (item.kind == ExprKind::kSlice)
    Refuse(ErrorKind::kUnsupported, "a slice beside other indices is not supported");
  Expr index = Parent(ExprKind::kTuple, line, std::move(item.args[1]));
  while (!IsOperator("]")) {
    ExpectOperator(",");
    Add(index, Expression());
  }
  Next();
  item.args.pop_back();
  Add(item, std::move(index));
  return item;
}

// What stands in [ ]: an index or a slice.
Expr ExpressionParser::Subscribed(Expr value) {
  const int line = Now().line;
  const auto absent = [&] {
    Expr none = Node(ExprKind::kConstant, line);
    none.constant.data = None{};
    return none;
  };
  Expr first = IsOperator(":") ? absent() : Expression();
  if (!IsOperator(":")) {
    Expr item = Parent(ExprKind::kItem, line, std::move(value));
    Add(item, std::move(first));
    return item;
  }
  Expr slice = Parent(ExprKind::kSlice, line, std::move(value));
  Add(slice, std::move(first));
  for (int part = 0; part < 2; ++part) {
    const bool has_part =
        AcceptOperator(":") && !IsOperator(":") && !IsOperator("]") && !IsOperator(",");
    Add(slice, has_part ? Expression() : absent());
  }
  return slice;
}

Expr ExpressionParser::Call(Expr callee) {
  Expr call = Parent(ExprKind::kCall, Now().line, std::move(callee));
  CallArguments(call);
  return call;
}

void ExpressionParser::CallArguments(Expr& call) {
  const Level level(*this);
  const auto require = [&](bool is_right) {
    if (!is_right) Refuse(ErrorKind::kCorrupt, "arguments in an order that is not allowed");
  };
  ExpectOperator("(");
  for (bool is_first = true; !IsOperator(")"); is_first = false) {
    if (!is_first) ExpectOperator(",");
    if (IsOperator(")")) break;
    if (AcceptOperator("*")) {
      require(!call.has_star && !call.has_double_star && call.keywords.empty());
      call.has_star = true;
    } else if (AcceptOperator("**")) {
      require(!call.has_double_star);
      call.has_double_star = true;
    } else if (Is(Kind::kName) && Is(Look(), Kind::kOperator, "=")) {
      require(!call.has_double_star && !call.has_star);
      call.keywords.push_back(ExpectName());
      Next();
    } else {
      require(!call.has_star && !call.has_double_star && call.keywords.empty());
    }
    Add(call, Expression());
  }
  Next();
}

std::string ExpressionParser::DottedName() {
  std::string name = ExpectName();
  while (AcceptOperator(".")) name += "." + ExpectName();
  return name;
}

const Builtin* ExpressionParser::Known(const Builtin* found, std::string_view what,
                                       const std::string& name) {
  if (found == nullptr && !is_conditional_)
    unknown_.push_back({Now().line, fmt::format("the {} {} is not supported", what, name)});
  return found;
}

void ExpressionParser::RefuseUnknown() const {
  if (!unknown_.empty())
    Throw(ErrorKind::kUnsupported, "{}: line {}: {}", source_, unknown_[0].line, unknown_[0].what);
}

Expr ExpressionParser::FilterChain(Expr value, bool starts_inline) {
  while (starts_inline || IsOperator("|")) {
    if (!starts_inline) Next();
    starts_inline = false;
    Expr filter = Parent(ExprKind::kFilter, Now().line, std::move(value));
    filter.text = DottedName();
    filter.builtin = Known(FindFilter(filter.text), "filter", filter.text);
    if (IsOperator("(")) CallArguments(filter);
    value = std::move(filter);
  }
  return value;
}

Expr ExpressionParser::Test(Expr value) {
  const int line = Now().line;
  Next();
  const bool is_negated = AcceptWord("not");
  Expr test = Parent(ExprKind::kTest, line, std::move(value));
  test.text = DottedName();
  test.builtin = Known(FindTest(test.text), "test", test.text);
  const bool has_argument = Is(Kind::kName) || Is(Kind::kString) || Is(Kind::kInteger) ||
                            Is(Kind::kFloat) || IsOperator("[") || IsOperator("{");
  if (IsOperator("(")) {
    CallArguments(test);
  } else if (has_argument && !IsWord("else") && !IsWord("or") && !IsWord("and")) {
    if (IsWord("is")) Refuse(ErrorKind::kCorrupt, "tests cannot be chained with \"is\"");
    const Level level(*this);
    Add(test, Postfix(Primary()));
  }
  return is_negated ? Parent(ExprKind::kNot, line, std::move(test)) : std::move(test);
}

}  // namespace wideload::jinja
