#include "jinja/interpreter.h"

#include <algorithm>

#include "jinja/python_text.h"
#include "tokenizer/unicode.h"

namespace wideload::jinja {

Interpreter::ScopeGuard::ScopeGuard(Interpreter& interpreter, Scope* parent,
                                    const std::vector<int>& hidden)
    : interpreter_(interpreter), previous_(interpreter.scope_) {
  auto& free = interpreter.free_scopes_;
  if (free.empty()) {
    scope_ = std::make_unique<Scope>();
  } else {
    scope_ = std::move(free.back());
    free.pop_back();
  }
  scope_->parent = parent;
  for (const int name : hidden)
    scope_->variables.emplace_back(
        name, Value::Missing(interpreter.program_.names[static_cast<size_t>(name)]));
  interpreter.scope_ = scope_.get();
}

Interpreter::ScopeGuard::~ScopeGuard() {
  interpreter_.scope_ = previous_;
  auto& kept = scope_->is_captured ? interpreter_.retained_scopes_ : interpreter_.free_scopes_;
  if (!scope_->is_captured) scope_->variables.clear();
  // Neither grows here: Capture has made room in the one, the other's room is fixed.
  if (kept.size() < kept.capacity()) kept.push_back(std::move(scope_));
}

Interpreter::Interpreter(const Program& program, const std::string& source,
                         const RenderOptions& options)
    : Runtime(source, options),
      program_(program),
      max_output_bytes_(static_cast<size_t>(options.limits.max_output_bytes)) {
  constexpr size_t kFreeScopes = 64;
  free_scopes_.reserve(kFreeScopes);
  for (size_t i = 0; i < program.names.size(); ++i) {
    const std::string& name = program.names[i];
    if (name == "loop") loop_name_ = static_cast<int>(i);
    if (name == "caller") caller_name_ = static_cast<int>(i);
    if (name == "kwargs") kwargs_name_ = static_cast<int>(i);
    if (name == "varargs") varargs_name_ = static_cast<int>(i);
  }
}

MarkedText Interpreter::Run(const std::vector<std::pair<std::string, Value>>& variables) {
  MarkedText output;
  output_ = &output;
  const ScopeGuard root(*this, nullptr);
  for (const auto& [name, value] : variables) {
    const auto found = std::find(program_.names.begin(), program_.names.end(), name);
    if (found != program_.names.end()) Set(static_cast<int>(found - program_.names.begin()), value);
  }
  const ScopeGuard top(*this, scope_, program_.hidden);
  RunAll(program_.statements);
  return output;
}

Value* Interpreter::Find(int name) const {
  for (Scope* scope = scope_; scope != nullptr; scope = scope->parent)
    for (auto& [known, value] : scope->variables)
      if (known == name) return &value;
  return nullptr;
}

void Interpreter::Set(int name, Value value) {
  constexpr int64_t kPerStep = 16;  // variables that are looked through
  auto& variables = scope_->variables;
  Step(static_cast<int64_t>(variables.size()) / kPerStep);
  const auto found = std::find_if(variables.begin(), variables.end(),
                                  [&](const auto& variable) { return variable.first == name; });
  if (found != variables.end()) {
    found->second = std::move(value);
    return;
  }
  if (scope_->is_captured) Work(sizeof(variables[0]));
  variables.emplace_back(name, std::move(value));
}

// Scopes that a macro closes over live as long as the rendering.
void Interpreter::Capture(Scope* scope) {
  for (; scope != nullptr && !scope->is_captured; scope = scope->parent) {
    Work(sizeof(Scope) + scope->variables.size() * sizeof(scope->variables[0]));
    ++num_captured_;
    if (retained_scopes_.capacity() < num_captured_) retained_scopes_.reserve(2 * num_captured_);
    scope->is_captured = true;
  }
}

Value Interpreter::Captured(const std::function<void()>& run) {
  MarkedText text;
  struct Restore {
    Interpreter& interpreter;
    MarkedText* previous;
    ~Restore() { interpreter.output_ = previous; }
  };
  {
    const Restore restore{*this, std::exchange(output_, &text)};
    run();
  }
  return Value::Text(std::move(text));
}

void Interpreter::Print(const Value& value) {
  const MarkedText* text = value.Str();
  const size_t size = text ? text->size() : 0;
  if (output_->size() + size > max_output_bytes_)
    Throw(ErrorKind::kResource, "{}: the rendered text is longer than {} bytes", source(),
          max_output_bytes_);
  AppendStr(value, *output_);
}

Interpreter::Flow Interpreter::RunAll(const std::vector<Statement>& statements) {
  const Level level(*this);
  for (const Statement& statement : statements) {
    const Flow flow = RunOne(statement);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::RunInScope(const Statement& statement) {
  const ScopeGuard scope(*this, scope_, statement.hidden);
  return RunAll(statement.body);
}

Interpreter::Flow Interpreter::RunOne(const Statement& statement) {
  set_line(statement.line);
  Step();
  switch (statement.kind) {
    case StatementKind::kText:
      Print(statement.text);
      break;
    case StatementKind::kOutput:
      Print(Evaluate(statement.expr));
      break;
    case StatementKind::kSet:
    case StatementKind::kSetBlock:
      RunSet(statement);
      break;
    case StatementKind::kFor:
      RunLoop(statement, Evaluate(statement.expr), scope_, 0);
      break;
    case StatementKind::kIf:
      return RunIf(statement);
    case StatementKind::kMacro:
      Set(statement.macro->name_id, MacroValue(*statement.macro));
      break;
    case StatementKind::kCallBlock:
      RunCallBlock(statement);
      break;
    case StatementKind::kFilterBlock:
      return RunFilterBlock(statement);
    case StatementKind::kScope:
      return RunInScope(statement);
    case StatementKind::kWith:
      return RunWith(statement);
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::RunIf(const Statement& statement) {
  for (const Branch& branch : statement.branches)
    if (IsTrue(Evaluate(branch.condition))) return RunAll(branch.body);
  return Flow::kNext;
}

// The items of a loop one by one, those that its test lets pass.
std::function<std::optional<Value>()> Interpreter::ItemsOf(const Statement& statement,
                                                           const Value& items, Scope* outer) {
  std::function<std::optional<Value>()> next;
  const Sequence* sequence = items.Seq();
  if (sequence != nullptr) {
    next = [this, items, sequence, i = size_t{0}]() mutable -> std::optional<Value> {
      Step();
      const Value* next_item = nullptr;
      if (sequence->kind == Sequence::Kind::kGenerator)
        next_item = NextOf(*sequence);
      else if (i < sequence->items.size())
        next_item = &sequence->items[i++];
      return next_item ? std::optional<Value>(*next_item) : std::nullopt;
    };
  } else {
    next = [list = Items(items), i = size_t{0}]() mutable -> std::optional<Value> {
      return i < list.size() ? std::optional<Value>(std::move(list[i++])) : std::nullopt;
    };
  }
  if (!statement.has_test) return next;
  return [this, next, &statement, outer]() -> std::optional<Value> {
    while (std::optional<Value> item = next()) {
      const ScopeGuard scope(*this, outer);
      Assign(statement.target, *item);
      if (IsTrue(Evaluate(statement.test))) return item;
    }
    return std::nullopt;
  };
}

void Interpreter::RunLoop(const Statement& statement, const Value& items, Scope* outer,
                          int64_t depth0) {
  const auto loop = std::make_shared<Loop>();
  loop->fetch = ItemsOf(statement, items, outer);
  loop->depth0 = depth0;
  loop->depth_of_items = DepthOf(items);
  if (statement.is_recursive) {
    Capture(outer);
    loop->recursive = &statement;
    loop->closure = outer;
  }
  // Who keeps the loop cannot ask it for more: the items' scope ends here.
  struct Ending {
    Loop& loop;
    ~Ending() { loop.fetch = nullptr; }
  };
  const Ending ending{*loop};
  while (loop->Advance()) {
    const ScopeGuard scope(*this, outer, statement.hidden);
    if (loop_name_ >= 0) Set(loop_name_, {loop});
    Assign(statement.target, *loop->current);
    if (RunAll(statement.body) == Flow::kBreak) return;
  }
  if (loop->index0 < 0) {
    const ScopeGuard scope(*this, outer, statement.hidden_otherwise);
    RunAll(statement.otherwise);
  }
}

void Interpreter::RunSet(const Statement& statement) {
  if (statement.kind == StatementKind::kSet)
    return Assign(statement.target, Evaluate(statement.expr));
  const Value body = Captured([&] { RunInScope(statement); });
  bodies_.push_back(body);
  const Value value = Evaluate(statement.expr);
  bodies_.pop_back();
  Assign(statement.target, value);
}

void Interpreter::RunCallBlock(const Statement& statement) {
  const Value callee = Evaluate(statement.expr.args[0]);
  Arguments arguments = ArgumentsOf(statement.expr, {});
  arguments.named.emplace_back("caller", MacroValue(*statement.macro));
  set_line(statement.line);
  Print(Call(callee, arguments));
}

Interpreter::Flow Interpreter::RunFilterBlock(const Statement& statement) {
  Flow flow = Flow::kNext;
  const Value body = Captured([&] { flow = RunInScope(statement); });
  if (flow != Flow::kNext) return flow;  // what a loop leaves is not printed
  bodies_.push_back(body);
  const Value text = Evaluate(statement.expr);
  bodies_.pop_back();
  if (text.Str() == nullptr) Refuse("a filter block that makes " + KindOf(text));
  Print(text);
  return flow;
}

Interpreter::Flow Interpreter::RunWith(const Statement& statement) {
  std::vector<Value> values;
  for (const Branch& branch : statement.branches) values.push_back(Evaluate(branch.condition));
  const ScopeGuard scope(*this, scope_, statement.hidden);
  for (size_t i = 0; i < values.size(); ++i) Assign(statement.branches[i].target, values[i]);
  return RunAll(statement.body);
}

void Interpreter::Assign(const Target& target, const Value& value) {
  if (target.kind == Target::Kind::kName) return Set(target.name, value);
  if (target.kind == Target::Kind::kAttribute) {
    Value* found = Find(target.name);
    Namespace* space = found ? found->Space() : nullptr;
    if (space == nullptr)
      Refuse(fmt::format("setting \"{}\" of {}; it must be a namespace", target.attribute,
                         found ? KindOf(*found) : "what is undefined"));
    return SetKey(space->attributes, Value::Text(target.attribute, false), value);
  }
  const std::vector<Value> items = Items(value);
  if (items.size() != target.items.size())
    Refuse(fmt::format("{} values for {} names", items.size(), target.items.size()));
  for (size_t i = 0; i < items.size(); ++i) Assign(target.items[i], items[i]);
}

Value Interpreter::MacroValue(const MacroNode& macro) {
  Capture(scope_);
  Work(sizeof(Callable));
  Callable callable{.macro = &macro, .closure = scope_};
  return {std::make_shared<const Callable>(std::move(callable))};
}

}  // namespace wideload::jinja
