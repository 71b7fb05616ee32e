// A parsed chat template: statements and expressions as plain trees.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace wideload::tokenizer {

enum class ExprKind {
  kLiteralString,  // text
  kLiteralInt,     // number
  kLiteralBool,    // number
  kLiteralNone,
  kName,       // text
  kAttribute,  // args[0].text
  kItem,       // args[0][args[1]]
  kBinary,     // args[0] text args[1]; text is the operator
  kNot,        // args[0]
  kNegate,     // args[0]
  kFilter,     // args[0] | text
  kTest,       // args[0] is text
  kRaise,      // raise_exception(args[0])
};

struct Expr {
  ExprKind kind = ExprKind::kLiteralNone;
  std::string text{};
  int64_t number = 0;
  std::vector<Expr> args{};
  int line = 0;
  int depth = 0;  // of the tree below, bounded by the parser
};

enum class StatementKind {
  kText,    // text
  kOutput,  // expr
  kSet,     // text = expr
  kFor,     // for text in expr: body
  kIf,      // the body of the first branch whose condition holds
};

struct Branch;

struct Statement {
  StatementKind kind = StatementKind::kText;
  std::string text{};
  Expr expr{};
  std::vector<Branch> branches;  // kFor: one
};

struct Branch {
  Expr condition{};
  std::vector<Statement> body{};
};

struct TemplateProgram {
  std::vector<Statement> statements{};
};

// Errors: kUnsupported, kCorrupt with `source`, the line and the construct.
TemplateProgram ParseTemplate(std::string_view text, const std::string& source);

// The lexer's part of it. A tag is {{ }} or {% %}; comments and trimmed white space are gone.
struct TemplateToken {
  enum class Kind { kName, kInt, kString, kOperator, kEnd };
  Kind kind = Kind::kEnd;
  std::string text{};
  int line = 0;
};

struct TemplateChunk {
  enum class Kind { kText, kOutput, kBlock };
  Kind kind = Kind::kText;
  std::string text{};                   // kText
  std::vector<TemplateToken> tokens{};  // else; ends with kEnd
};

std::vector<TemplateChunk> LexTemplate(std::string_view text, const std::string& source);

}  // namespace wideload::tokenizer
