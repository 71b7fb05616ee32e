// A parsed template: statements and expressions as trees. Immutable once parsed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "jinja/callable.h"
#include "jinja/value.h"

namespace wideload::jinja {

// What an expression is; which of Expr's fields are used depends on it.
enum class ExprKind {
  kConstant,
  kName,       // name
  kAttribute,  // args[0] . text
  kItem,       // args[0] [ args[1] ]
  kSlice,      // args[0] [ args[1] : args[2] : args[3] ], constants of none where absent
  kCall,       // args[0] ( arguments )
  kFilter,     // args[0] | text ( arguments )
  kTest,       // args[0] is text ( arguments )
  kBody,       // the value that a block hands to its filter
  kNot,
  kNegate,
  kPlus,
  kAnd,
  kOr,
  kCompare,      // args[0] operators[0] args[1] operators[1] ...
  kConcat,       // args joined
  kArithmetic,   // args[0] operators[0] args[1]
  kConditional,  // args[1] if args[0] else args[2]; two args: undefined
  kList,
  kTuple,
  kDict,  // key, value, key, value
};

// An expression and its parts.
struct Expr {
  ExprKind kind = ExprKind::kConstant;
  int line = 0;
  int depth = 0;  // of the tree below
  int name = -1;  // into Program::names
  std::string text{};
  Value constant{};
  std::vector<Expr> args{};
  std::vector<Operator> operators{};
  // Of calls, filters and tests: args[1..] are positional, then named, then *, then **.
  std::vector<std::string> keywords{};
  bool has_star = false;
  bool has_double_star = false;
  // kFilter, kTest: null when there is none of the name; kName: the function of the language.
  const Builtin* builtin = nullptr;
};

// What is assigned to: a name, several, or an attribute of a namespace.
struct Target {
  // How the value is taken apart.
  enum class Kind { kName, kTuple, kAttribute };
  Kind kind = Kind::kName;
  int name = -1;
  std::string attribute{};
  std::vector<Target> items{};
};

// What a statement is; which of Statement's fields are used depends on it.
enum class StatementKind {
  kText,      // text
  kOutput,    // expr
  kSet,       // target = expr
  kSetBlock,  // target = body, through expr where there is a filter
  kFor,
  kIf,  // the body of the first branch whose condition holds
  kMacro,
  kCallBlock,    // expr is the call, macro the caller
  kFilterBlock,  // body through expr
  kScope,        // body in a scope of its own
  kWith,         // targets of branches[0..] = their conditions, then body
  kBreak,
  kContinue,
};

struct Branch;

// A statement and its parts.
struct Statement {
  StatementKind kind = StatementKind::kText;
  int line = 0;
  Value text{};
  Target target{};
  Expr expr{};
  bool has_test = false;      // kFor
  bool is_recursive = false;  // kFor
  Expr test{};                // kFor
  std::vector<Statement> body{};
  std::vector<Statement> otherwise{};  // kFor: runs when there was no item
  std::vector<Branch> branches;
  std::shared_ptr<MacroNode> macro{};
  std::vector<int> hidden{};            // of body: names that are undefined until it sets them
  std::vector<int> hidden_otherwise{};  // of otherwise
};

// A part of a statement that is run under a condition, or for each item.
struct Branch {
  Target target{};
  Expr condition{};
  std::vector<Statement> body{};
};

// A macro as it is written.
struct MacroNode {
  std::string name;
  int name_id = -1;
  std::vector<int> parameters;
  std::vector<std::string> parameter_names;
  std::vector<Expr> defaults;  // of the last parameters
  std::vector<Statement> body;
  std::vector<int> hidden;
  bool uses_caller = false;
  bool uses_kwargs = false;
  bool uses_varargs = false;
};

// A whole template.
struct Program {
  std::vector<Statement> statements;
  std::vector<int> hidden;
  std::vector<std::string> names;
};

// Errors: kUnsupported and kCorrupt, with `source`, the line and the construct.
Program ParseTemplate(std::string_view text, const std::string& source);

}  // namespace wideload::jinja
