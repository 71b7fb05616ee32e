// Runs a parsed template. One rendering, one thread.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "jinja/ast.h"
#include "jinja/runtime.h"

namespace wideload::jinja {

// The variables that a body sets; what it does not know is looked for in `parent`.
struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<int, Value>> variables;
  bool is_captured = false;  // a macro or a loop may look into it after its body has ended
};

class Interpreter : public Runtime {
 public:
  // All three must outlive this object.
  Interpreter(const Program& program, const std::string& source, const RenderOptions& options);

  // The rendered text. Errors: kInvalid and kUnsupported with the template's name and line;
  // kResource beyond the budget of options.
  MarkedText Run(const std::vector<std::pair<std::string, Value>>& variables);

  Value Call(const Value& callee, const Arguments& arguments) override;

 private:
  enum class Flow { kNext, kBreak, kContinue };
  // Makes a scope current for as long as it lives.
  class ScopeGuard {
   public:
    // `hidden` are undefined in it until they are set.
    ScopeGuard(Interpreter& interpreter, Scope* parent, const std::vector<int>& hidden = {});
    ~ScopeGuard();
    ScopeGuard(const ScopeGuard&) = delete;
    ScopeGuard& operator=(const ScopeGuard&) = delete;

   private:
    Interpreter& interpreter_;
    Scope* previous_;
    std::unique_ptr<Scope> scope_;
  };

  // Statements.
  Flow RunAll(const std::vector<Statement>& statements);
  Flow RunOne(const Statement& statement);
  Flow RunIf(const Statement& statement);
  Flow RunInScope(const Statement& statement);
  void RunLoop(const Statement& statement, const Value& items, Scope* outer, int64_t depth0);
  std::function<std::optional<Value>()> ItemsOf(const Statement& statement, const Value& items,
                                                Scope* outer);
  void RunSet(const Statement& statement);
  void RunCallBlock(const Statement& statement);
  Flow RunFilterBlock(const Statement& statement);
  Flow RunWith(const Statement& statement);
  void Assign(const Target& target, const Value& value);
  void Print(const Value& value);
  // What `run` prints.
  Value Captured(const std::function<void()>& run);

  // Expressions.
  Value Evaluate(const Expr& expr);
  Value EvaluateList(const Expr& expr, Sequence::Kind kind);
  Value EvaluateDict(const Expr& expr);
  Value EvaluateSlice(const Expr& expr);
  bool EvaluateCompare(const Expr& expr);
  Value EvaluateConcat(const Expr& expr);
  Value EvaluateBuiltin(const Expr& expr);
  Value Variable(const Expr& expr) const;
  Arguments ArgumentsOf(const Expr& expr, Arguments arguments);

  Value CallMacro(const Callable& callable, const Arguments& arguments);
  void BindParameters(const MacroNode& macro, const Arguments& given);
  Value CallLoop(const std::shared_ptr<Loop>& loop, const Arguments& arguments);
  Value MacroValue(const MacroNode& macro);
  void Capture(Scope* scope);
  Value* Find(int name) const;
  void Set(int name, Value value);

  const Program& program_;
  MarkedText* output_ = nullptr;
  Scope* scope_ = nullptr;
  std::vector<Value> bodies_;  // what blocks hand to their filters, the innermost last
  std::vector<std::unique_ptr<Scope>> free_scopes_;
  std::vector<std::unique_ptr<Scope>> retained_scopes_;  // captured, and their bodies have ended
  size_t num_captured_ = 0;
  int loop_name_ = -1;
  int caller_name_ = -1;
  int kwargs_name_ = -1;
  int varargs_name_ = -1;
  const size_t max_output_bytes_;
};

}  // namespace wideload::jinja
