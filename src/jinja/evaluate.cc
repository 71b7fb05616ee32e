// Expressions and calls.
#include <algorithm>

#include "jinja/interpreter.h"

namespace wideload::jinja {
namespace {

// Takes what is given for a name; nothing when it is not given.
std::optional<Value> TakeNamed(Arguments& arguments, std::string_view name) {
  const auto found = std::find_if(arguments.named.begin(), arguments.named.end(),
                                  [&](const auto& named) { return named.first == name; });
  if (found == arguments.named.end()) return std::nullopt;
  std::optional<Value> value = std::move(found->second);
  arguments.named.erase(found);
  return value;
}

}  // namespace

Value Interpreter::Variable(const Expr& expr) const {
  if (const Value* value = Find(expr.name)) return *value;
  if (expr.builtin != nullptr)
    return {std::make_shared<const Callable>(Callable{.builtin = expr.builtin})};
  return Value::Missing(expr.text);
}

Value Interpreter::Evaluate(const Expr& expr) {
  const Level level(*this);
  Step();
  set_line(expr.line);
  switch (expr.kind) {
    case ExprKind::kConstant:
      return expr.constant;
    case ExprKind::kName:
      return Variable(expr);
    case ExprKind::kAttribute:
      return Attribute(Evaluate(expr.args[0]), expr.text);
    case ExprKind::kItem: {
      const Value object = Evaluate(expr.args[0]);
      return Item(object, Evaluate(expr.args[1]));
    }
    case ExprKind::kSlice:
      return EvaluateSlice(expr);
    case ExprKind::kCall: {
      const Value callee = Evaluate(expr.args[0]);
      const Arguments arguments = ArgumentsOf(expr, {});
      set_line(expr.line);
      return Call(callee, arguments);
    }
    case ExprKind::kFilter:
    case ExprKind::kTest:
      return EvaluateBuiltin(expr);
    case ExprKind::kBody:
      return bodies_.back();
    case ExprKind::kNot:
      return {!IsTrue(Evaluate(expr.args[0]))};
    case ExprKind::kNegate:
      return Negate(Evaluate(expr.args[0]));
    case ExprKind::kPlus:
      return Plus(Evaluate(expr.args[0]));
    case ExprKind::kAnd:
    case ExprKind::kOr: {
      Value left = Evaluate(expr.args[0]);
      if (IsTrue(left) == (expr.kind == ExprKind::kOr)) return left;
      return Evaluate(expr.args[1]);
    }
    case ExprKind::kCompare:
      return {EvaluateCompare(expr)};
    case ExprKind::kConcat:
      return EvaluateConcat(expr);
    case ExprKind::kArithmetic: {
      const Value left = Evaluate(expr.args[0]);
      const Value right = Evaluate(expr.args[1]);
      set_line(expr.line);
      return Arithmetic(expr.operators[0], left, right);
    }
    case ExprKind::kConditional:
      if (IsTrue(Evaluate(expr.args[0]))) return Evaluate(expr.args[1]);
      if (expr.args.size() > 2) return Evaluate(expr.args[2]);
      return Value::Missing("an if without else");
    case ExprKind::kList:
      return EvaluateList(expr, Sequence::Kind::kList);
    case ExprKind::kTuple:
      return EvaluateList(expr, Sequence::Kind::kTuple);
    case ExprKind::kDict:
      return EvaluateDict(expr);
  }
  return {};
}

Value Interpreter::EvaluateList(const Expr& expr, Sequence::Kind kind) {
  std::vector<Value> items;
  for (const Expr& item : expr.args) items.push_back(Evaluate(item));
  return List(std::move(items), kind);
}

Value Interpreter::EvaluateDict(const Expr& expr) {
  Dict dict;
  for (size_t i = 0; i + 1 < expr.args.size(); i += 2) {
    Value key = Evaluate(expr.args[i]);
    SetKey(dict, std::move(key), Evaluate(expr.args[i + 1]));
  }
  return Mapping(std::move(dict));
}

Value Interpreter::EvaluateSlice(const Expr& expr) {
  const Value object = Evaluate(expr.args[0]);
  const Value begin = Evaluate(expr.args[1]);
  const Value end = Evaluate(expr.args[2]);
  return Slice(object, {begin, end, Evaluate(expr.args[3])});
}

bool Interpreter::EvaluateCompare(const Expr& expr) {
  Value left = Evaluate(expr.args[0]);
  for (size_t i = 0; i < expr.operators.size(); ++i) {
    Value right = Evaluate(expr.args[i + 1]);
    set_line(expr.line);
    if (!Holds(expr.operators[i], left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Interpreter::EvaluateConcat(const Expr& expr) {
  MarkedText text;
  for (const Expr& part : expr.args) AppendStr(Evaluate(part), text);
  return Text(std::move(text));
}

// A filter or a test.
Value Interpreter::EvaluateBuiltin(const Expr& expr) {
  Arguments arguments = ArgumentsOf(expr, {.positional = {Evaluate(expr.args[0])}});
  set_line(expr.line);
  if (expr.builtin == nullptr)
    Unsupported((expr.kind == ExprKind::kFilter ? "the filter " : "the test ") + expr.text);
  return CallBuiltin(*expr.builtin, arguments);
}

// args[1..] after what `arguments` has.
Arguments Interpreter::ArgumentsOf(const Expr& expr, Arguments arguments) {
  const size_t num_dynamic = (expr.has_star ? 1U : 0U) + (expr.has_double_star ? 1U : 0U);
  const size_t end = expr.args.size() - num_dynamic;
  const size_t first_named = end - expr.keywords.size();
  for (size_t i = 1; i < first_named; ++i) arguments.positional.push_back(Evaluate(expr.args[i]));
  for (size_t i = first_named; i < end; ++i)
    arguments.named.emplace_back(expr.keywords[i - first_named], Evaluate(expr.args[i]));
  if (expr.has_star) {
    const std::vector<Value> more = Items(Evaluate(expr.args[end]));
    arguments.positional.insert(arguments.positional.end(), more.begin(), more.end());
  }
  if (!expr.has_double_star) return arguments;
  const Value mapping = Evaluate(expr.args.back());
  if (mapping.Map() == nullptr) Refuse("** of " + KindOf(mapping));
  for (const Dict::Entry& entry : mapping.Map()->entries())
    arguments.named.emplace_back(Characters(entry.key, "the name of an argument").text(),
                                 entry.value);
  return arguments;
}

Value Interpreter::Call(const Value& callee, const Arguments& arguments) {
  const Level level(*this);
  if (const auto loop = callee.TheLoop()) return CallLoop(loop, arguments);
  const Callable* callable = callee.Function();
  if (callable == nullptr) Refuse("calling " + KindOf(callee));
  if (callable->macro != nullptr) return CallMacro(*callable, arguments);
  if (callable->self.IsUndefined()) return CallBuiltin(*callable->builtin, arguments);
  Arguments with_self{.positional = {callable->self}, .named = arguments.named};
  with_self.positional.insert(with_self.positional.end(), arguments.positional.begin(),
                              arguments.positional.end());
  return CallBuiltin(*callable->builtin, with_self);
}

// Gives the macro's scope its parameters and, where it reads them, caller, kwargs and varargs.
void Interpreter::BindParameters(const MacroNode& macro, const Arguments& given) {
  Arguments rest = given;
  const size_t num_parameters = macro.parameters.size();
  const size_t num_positional = std::min(given.positional.size(), num_parameters);
  std::vector<bool> is_bound(num_parameters, false);
  for (size_t i = 0; i < num_parameters; ++i) {
    std::optional<Value> value = i < num_positional ? std::optional<Value>(given.positional[i])
                                                    : TakeNamed(rest, macro.parameter_names[i]);
    is_bound[i] = value.has_value();
    if (value) Set(macro.parameters[i], std::move(*value));
  }
  if (macro.uses_caller)
    Set(caller_name_, TakeNamed(rest, "caller").value_or(Value::Missing("caller")));
  if (macro.uses_kwargs) {
    Dict named;
    for (auto& [name, value] : rest.named) SetKey(named, Text(name), std::move(value));
    Set(kwargs_name_, Mapping(std::move(named)));
  } else if (!rest.named.empty()) {
    Refuse(fmt::format("the macro {} has no argument {}", macro.name, rest.named[0].first));
  }
  rest.positional.erase(rest.positional.begin(),
                        rest.positional.begin() + static_cast<std::ptrdiff_t>(num_positional));
  if (!rest.positional.empty() && !macro.uses_varargs)
    Refuse(fmt::format("the macro {} takes at most {} arguments", macro.name, num_parameters));
  if (macro.uses_varargs)
    Set(varargs_name_, List(std::move(rest.positional), Sequence::Kind::kTuple));
  const size_t num_required = num_parameters - macro.defaults.size();
  for (size_t i = 0; i < num_parameters; ++i) {
    if (is_bound[i]) continue;
    Set(macro.parameters[i], i < num_required ? Value::Missing(macro.parameter_names[i])
                                              : Evaluate(macro.defaults[i - num_required]));
  }
}

Value Interpreter::CallMacro(const Callable& callable, const Arguments& arguments) {
  const ScopeGuard scope(*this, callable.closure, callable.macro->hidden);
  BindParameters(*callable.macro, arguments);
  return Captured([&] { RunAll(callable.macro->body); });
}

Value Interpreter::CallLoop(const std::shared_ptr<Loop>& loop, const Arguments& arguments) {
  if (loop->recursive == nullptr) Refuse("calling a loop that is not marked as recursive");
  if (arguments.positional.size() != 1 || !arguments.named.empty())
    Refuse("a loop is called with one value");
  return Captured(
      [&] { RunLoop(*loop->recursive, arguments.positional[0], loop->closure, loop->depth0 + 1); });
}

}  // namespace wideload::jinja
