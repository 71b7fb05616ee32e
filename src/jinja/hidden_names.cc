#include "jinja/hidden_names.h"

#include <functional>
#include <set>

namespace wideload::jinja {
namespace {

// What is known of the names of one body.
struct Names {
  const Names* parent = nullptr;  // the body around it
  const Names* base = nullptr;    // of a branch: what was known of its own body before
  std::set<int> known{};          // set, read, or a parameter
  std::set<int> hidden{};         // set first
};

bool IsKnownInBody(const Names* names, int name) {
  for (; names != nullptr; names = names->base)
    if (names->known.contains(name)) return true;
  return false;
}

bool IsKnown(const Names* names, int name) {
  for (; names != nullptr; names = names->parent)
    if (IsKnownInBody(names, name)) return true;
  return false;
}

class HiddenNames {
 public:
  // The body of `statements` within `parent`; `declare` tells its parameters. Returns what it
  // hides.
  std::vector<int> Find(std::vector<Statement>& statements, const Names* parent,
                        const std::function<void(Names&)>& declare = {}) {
    Names names{.parent = parent};
    if (declare) declare(names);
    VisitAll(statements, names);
    for (Statement& statement : statements) FindWithin(statement, names);
    return {names.hidden.begin(), names.hidden.end()};
  }

  void set_loop_name(int name) { loop_name_ = name; }

 private:
  static void Load(Names& names, int name) {
    if (!IsKnown(&names, name)) names.known.insert(name);
  }

  static void Store(Names& names, int name) {
    if (IsKnownInBody(&names, name)) return;
    if (!IsKnown(names.parent, name)) names.hidden.insert(name);
    names.known.insert(name);
  }

  static void Declare(Names& names, int name) { names.known.insert(name); }

  static void DeclareAll(Names& names, const Target& target) {
    if (target.kind == Target::Kind::kName) Declare(names, target.name);
    for (const Target& item : target.items) DeclareAll(names, item);
  }

  static void Visit(const Expr& expr, Names& names) {
    if (expr.kind == ExprKind::kName) Load(names, expr.name);
    for (const Expr& arg : expr.args) Visit(arg, names);
  }

  static void Visit(const Target& target, Names& names) {
    if (target.kind == Target::Kind::kName) Store(names, target.name);
    if (target.kind == Target::Kind::kAttribute) Load(names, target.name);
    for (const Target& item : target.items) Visit(item, names);
  }

  void VisitAll(const std::vector<Statement>& statements, Names& names) {
    for (const Statement& statement : statements) Visit(statement, names);
  }

  // What is set in a branch is set in some cases only: it hides nothing.
  static void Merge(const Names& branch, Names& names) {
    names.known.insert(branch.known.begin(), branch.known.end());
  }

  void Visit(const Statement& statement, Names& names) {
    switch (statement.kind) {
      case StatementKind::kSet:
        Visit(statement.expr, names);
        Visit(statement.target, names);
        break;
      case StatementKind::kSetBlock:
        Visit(statement.target, names);
        break;
      case StatementKind::kIf:
        VisitIf(statement, names);
        break;
      case StatementKind::kMacro:
        Store(names, statement.macro->name_id);
        break;
      case StatementKind::kWith:
        for (const Branch& branch : statement.branches) Visit(branch.condition, names);
        break;
      default:
        Visit(statement.expr, names);
    }
  }

  // The branches after the first are, for jinja2, one `if` within the other's else.
  void VisitIf(const Statement& statement, Names& names) {
    Visit(statement.branches[0].condition, names);
    const auto branch_of = [](const Names& base) {
      return Names{.parent = base.parent, .base = &base};
    };
    Names first = branch_of(names);
    Names others = branch_of(names);
    VisitAll(statement.branches[0].body, first);
    for (size_t i = 1; i < statement.branches.size(); ++i) {
      Visit(statement.branches[i].condition, others);
      Names body = branch_of(others);
      VisitAll(statement.branches[i].body, body);
      Merge(body, others);
    }
    Merge(first, names);
    Merge(others, names);
  }

  // The bodies that are scopes of their own.
  void FindWithin(Statement& statement, const Names& names) {
    for (Branch& branch : statement.branches)
      for (Statement& inner : branch.body) FindWithin(inner, names);
    if (statement.macro) {
      MacroNode& macro = *statement.macro;
      macro.hidden = Find(macro.body, &names, [&](Names& own) {
        for (const int parameter : macro.parameters) Declare(own, parameter);
        for (const Expr& value : macro.defaults) Visit(value, own);
      });
    }
    statement.hidden = Find(statement.body, &names, [&](Names& own) {
      if (statement.kind == StatementKind::kFor) {
        DeclareAll(own, statement.target);
        if (loop_name_ >= 0) Declare(own, loop_name_);
      }
      for (const Branch& branch : statement.branches) DeclareAll(own, branch.target);
    });
    statement.hidden_otherwise = Find(statement.otherwise, &names);
  }

  int loop_name_ = -1;
};

}  // namespace

void FindHiddenNames(Program& program) {
  HiddenNames finder;
  for (size_t i = 0; i < program.names.size(); ++i)
    if (program.names[i] == "loop") finder.set_loop_name(static_cast<int>(i));
  program.hidden = finder.Find(program.statements, nullptr);
}

}  // namespace wideload::jinja
