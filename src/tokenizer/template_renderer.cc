#include "tokenizer/template_renderer.h"

#include <algorithm>

#include "base/error.h"
#include "tokenizer/unicode.h"

namespace wideload::tokenizer {
namespace {

constexpr int64_t kMaxSteps = 1'000'000;               // statements and expressions
constexpr int64_t kMaxWorkBytes = int64_t{256} << 20;  // made by all string operations
constexpr size_t kMaxOutputBytes = size_t{16} << 20;

// Python's str.strip(): White_Space and the separators U+001C to U+001F.
bool IsStripped(uint32_t code_point) {
  return IsWhiteSpace(code_point) || (code_point >= 0x1C && code_point <= 0x1F);
}

MarkedString Trimmed(const MarkedString& string) {
  size_t begin = string.text.size();
  size_t end = string.text.size();
  for (size_t i = 0; i < string.text.size();) {
    const Utf8Unit unit = Utf8At(string.text, i);
    if (!IsStripped(unit.code_point)) {
      begin = std::min(begin, i);
      end = i + unit.length;
    }
    i += unit.length;
  }
  return string.Slice(begin, end);
}

int64_t NumCodePoints(std::string_view text) {
  int64_t count = 0;
  for (size_t i = 0; i < text.size(); i += Utf8At(text, i).length) ++count;
  return count;
}

class TemplateRenderer {
 public:
  TemplateRenderer(TemplateMap variables, const std::string& source) : source_(source) {
    scopes_.push_back(std::move(variables));
  }

  MarkedString Run(const TemplateProgram& program) {
    RunAll(program.statements);
    return std::move(output_);
  }

 private:
  [[noreturn]] void Refuse(const Expr& at, const std::string& what) const {
    Throw(ErrorKind::kInvalid, "{}: line {}: {}", source_, at.line, what);
  }

  void Step() {
    if (++steps_ > kMaxSteps)
      Throw(ErrorKind::kResource, "{}: rendering took more than {} steps", source_, kMaxSteps);
  }

  MarkedString Worked(MarkedString string) {
    work_bytes_ += static_cast<int64_t>(string.text.size());
    if (work_bytes_ > kMaxWorkBytes)
      Throw(ErrorKind::kResource, "{}: rendering moved more than {} bytes", source_, kMaxWorkBytes);
    return string;
  }

  void Print(const MarkedString& string) {
    if (output_.text.size() + string.text.size() > kMaxOutputBytes)
      Throw(ErrorKind::kResource, "{}: the rendered text is longer than {} bytes", source_,
            kMaxOutputBytes);
    output_.Append(string);
  }

  void RunAll(const std::vector<Statement>& statements) {
    for (const Statement& statement : statements) RunOne(statement);
  }

  void RunOne(const Statement& statement) {
    Step();
    switch (statement.kind) {
      case StatementKind::kText:
        return Print(MarkedString::FromTemplate(statement.text));
      case StatementKind::kOutput:
        return Print(Text(Evaluate(statement.expr), statement.expr));
      case StatementKind::kSet:
        scopes_.back().insert_or_assign(statement.text, Evaluate(statement.expr));
        return;
      case StatementKind::kFor:
        return RunFor(statement);
      case StatementKind::kIf:
        for (const Branch& branch : statement.branches)
          if (IsTrue(Evaluate(branch.condition))) return RunAll(branch.body);
    }
  }

  void RunFor(const Statement& statement) {
    const TemplateValue value = Evaluate(statement.expr);
    if (value.As<TemplateUndefined>()) return;
    const TemplateList* list = value.List();
    if (list == nullptr)
      Refuse(statement.expr, fmt::format("for over {}; it must be a list", KindOf(value)));
    const auto count = static_cast<int64_t>(list->size());
    for (int64_t i = 0; i < count; ++i) {
      TemplateMap loop{{"first", {i == 0}},
                       {"last", {i + 1 == count}},
                       {"index", {i + 1}},
                       {"index0", {i}},
                       {"length", {count}}};
      TemplateMap scope{{"loop", {std::make_shared<const TemplateMap>(std::move(loop))}}};
      scope.insert_or_assign(statement.text, (*list)[static_cast<size_t>(i)]);
      scopes_.push_back(std::move(scope));
      RunAll(statement.branches[0].body);
      scopes_.pop_back();
    }
  }

  // What is printed, as Python's str().
  MarkedString Text(const TemplateValue& value, const Expr& at) {
    if (const auto* string = value.As<MarkedString>()) return Worked(*string);
    if (value.As<TemplateUndefined>()) return {};
    if (value.As<TemplateNone>()) return MarkedString::FromTemplate("None");
    if (const bool* boolean = value.As<bool>())
      return MarkedString::FromTemplate(*boolean ? "True" : "False");
    if (const int64_t* number = value.As<int64_t>())
      return MarkedString::FromTemplate(fmt::to_string(*number));
    Refuse(at, fmt::format("printing {} is not supported", KindOf(value)));
  }

  TemplateValue Evaluate(const Expr& expr) {
    Step();
    switch (expr.kind) {
      case ExprKind::kLiteralString:
        return {MarkedString::FromTemplate(expr.text)};
      case ExprKind::kLiteralInt:
        return {expr.number};
      case ExprKind::kLiteralBool:
        return {expr.number != 0};
      case ExprKind::kLiteralNone:
        return {TemplateNone{}};
      case ExprKind::kName:
        return Variable(expr.text);
      case ExprKind::kAttribute:
        return Member(expr, Evaluate(expr.args[0]), expr.text);
      case ExprKind::kItem:
        return Item(expr);
      case ExprKind::kBinary:
        return Binary(expr);
      case ExprKind::kNot:
        return {!IsTrue(Evaluate(expr.args[0]))};
      case ExprKind::kNegate:
        return {-Integer(Evaluate(expr.args[0]), expr)};
      case ExprKind::kFilter:
        return Filtered(expr, Evaluate(expr.args[0]));
      case ExprKind::kTest:
        return {Test(expr.text, Evaluate(expr.args[0]))};
      case ExprKind::kRaise:
        break;
    }
    Refuse(expr,
           "the template refuses the conversation: " + Text(Evaluate(expr.args[0]), expr).text);
  }

  TemplateValue Variable(const std::string& name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope)
      if (const auto found = scope->find(name); found != scope->end()) return found->second;
    return {TemplateUndefined{name}};
  }

  TemplateValue Member(const Expr& expr, const TemplateValue& object, const std::string& name) {
    if (object.As<TemplateUndefined>())
      Refuse(expr, fmt::format("\"{}\" of {}", name, KindOf(object)));
    const TemplateMap* map = object.Map();
    const auto found = map ? map->find(name) : TemplateMap::const_iterator();
    if (map == nullptr || found == map->end()) return {TemplateUndefined{name}};
    return found->second;
  }

  TemplateValue Item(const Expr& expr) {
    const TemplateValue object = Evaluate(expr.args[0]);
    const TemplateValue index = Evaluate(expr.args[1]);
    if (const auto* name = index.As<MarkedString>()) return Member(expr, object, name->text);
    int64_t position = Integer(index, expr);
    const TemplateList* list = object.List();
    if (list == nullptr) Refuse(expr, fmt::format("an index into {}", KindOf(object)));
    const auto size = static_cast<int64_t>(list->size());
    if (position < 0) position += size;
    if (position < 0 || position >= size) return {TemplateUndefined{"an index out of range"}};
    return (*list)[static_cast<size_t>(position)];
  }

  int64_t Integer(const TemplateValue& value, const Expr& at) {
    if (const int64_t* number = value.As<int64_t>()) return *number;
    if (const bool* boolean = value.As<bool>()) return *boolean ? 1 : 0;
    Refuse(at, fmt::format("{} where an integer must be", KindOf(value)));
  }

  TemplateValue Binary(const Expr& expr) {
    const std::string& op = expr.text;
    TemplateValue left = Evaluate(expr.args[0]);
    if (op == "and") return IsTrue(left) ? Evaluate(expr.args[1]) : std::move(left);
    if (op == "or") return IsTrue(left) ? std::move(left) : Evaluate(expr.args[1]);
    const TemplateValue right = Evaluate(expr.args[1]);
    if (op == "==") return {AreEqual(left, right)};
    if (op == "!=") return {!AreEqual(left, right)};
    if (op == "in") return {Contains(expr, right, left)};
    if (op == "not in") return {!Contains(expr, right, left)};
    if (op == "~" || (op == "+" && left.As<MarkedString>() && right.As<MarkedString>())) {
      MarkedString joined = Text(left, expr);
      joined.Append(Text(right, expr));
      return {Worked(std::move(joined))};
    }
    return Arithmetic(expr, left, right);
  }

  TemplateValue Arithmetic(const Expr& expr, const TemplateValue& left,
                           const TemplateValue& right) {
    const std::string& op = expr.text;
    const auto* left_text = left.As<MarkedString>();
    const auto* right_text = right.As<MarkedString>();
    const bool is_order = op == "<" || op == ">" || op == "<=" || op == ">=";
    if (is_order && left_text && right_text)
      return {Ordered(op, left_text->text.compare(right_text->text), 0)};
    if (left_text || right_text || left.As<TemplateUndefined>() || right.As<TemplateUndefined>())
      Refuse(expr, fmt::format("{} {} {}", KindOf(left), op, KindOf(right)));
    const int64_t a = Integer(left, expr);
    const int64_t b = Integer(right, expr);
    if (is_order) return {Ordered(op, a, b)};
    int64_t result = 0;
    bool overflows = false;
    if (op == "+") overflows = __builtin_add_overflow(a, b, &result);
    if (op == "-") overflows = __builtin_sub_overflow(a, b, &result);
    if (op == "*") overflows = __builtin_mul_overflow(a, b, &result);
    if (op == "%" && b == 0) Refuse(expr, "modulo by 0");
    if (op == "%" && b != -1) result = (a % b != 0 && (a < 0) != (b < 0)) ? a % b + b : a % b;
    // One bit less than int64, so that a negation cannot overflow.
    constexpr int64_t kMax = int64_t{1} << 62;
    if (overflows || result > kMax || result < -kMax) Refuse(expr, "an integer beyond 2^62");
    return {result};
  }

  template <class T>
  static bool Ordered(std::string_view op, T a, T b) {
    if (op == "<") return a < b;
    if (op == ">") return a > b;
    return op == "<=" ? a <= b : a >= b;
  }

  bool Contains(const Expr& expr, const TemplateValue& container, const TemplateValue& value) {
    if (container.As<TemplateUndefined>()) return false;
    const auto* part = value.As<MarkedString>();
    if (const auto* text = container.As<MarkedString>(); text && part) {
      Worked({text->text, ""});
      return text->text.find(part->text) != std::string::npos;
    }
    if (const TemplateList* list = container.List())
      return std::any_of(list->begin(), list->end(),
                         [&](const TemplateValue& one) { return AreEqual(one, value); });
    if (const TemplateMap* map = container.Map(); map && part) return map->contains(part->text);
    Refuse(expr, fmt::format("{} in {}", KindOf(value), KindOf(container)));
  }

  TemplateValue Filtered(const Expr& expr, const TemplateValue& value) {
    const auto* string = value.As<MarkedString>();
    if (expr.text == "trim") {
      if (string || value.As<TemplateUndefined>())
        return {string ? Trimmed(Worked(*string)) : MarkedString()};
      Refuse(expr, fmt::format("trim of {} is not supported", KindOf(value)));
    }
    if (string) return {NumCodePoints(Worked(*string).text)};
    if (value.List()) return {static_cast<int64_t>(value.List()->size())};
    if (value.Map()) return {static_cast<int64_t>(value.Map()->size())};
    if (value.As<TemplateUndefined>()) return {int64_t{0}};
    Refuse(expr, fmt::format("length of {}", KindOf(value)));
  }

  static bool Test(std::string_view name, const TemplateValue& value) {
    const bool is_undefined = value.As<TemplateUndefined>() != nullptr;
    if (name == "defined") return !is_undefined;
    if (name == "undefined") return is_undefined;
    if (name == "none") return value.As<TemplateNone>() != nullptr;
    return value.As<MarkedString>() != nullptr;
  }

  const std::string& source_;
  std::vector<TemplateMap> scopes_;  // the last is the innermost
  MarkedString output_;
  int64_t steps_ = 0;
  int64_t work_bytes_ = 0;
};

}  // namespace

MarkedString RunTemplate(const TemplateProgram& program, TemplateMap variables,
                         const std::string& source) {
  return TemplateRenderer(std::move(variables), source).Run(program);
}

}  // namespace wideload::tokenizer
