// Parses the expressions of a template. Part of the parser.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "jinja/ast.h"
#include "jinja/lexer.h"

namespace wideload::jinja {

// Source: jinja2 3.1, parser.py, whose functions have the same names.
class ExpressionParser {
 public:
  // `source` names the template in messages and must outlive this object.
  ExpressionParser(std::vector<Token> tokens, const std::string& source)
      : tokens_(std::move(tokens)), source_(source) {}

 protected:
  // Counts the nesting for as long as it lives.
  struct Level {
    explicit Level(ExpressionParser& p);
    ~Level() { --parser.level_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    ExpressionParser& parser;
  };

  [[noreturn]] void Refuse(ErrorKind kind, const std::string& what) const;
  [[noreturn]] void RefuseToken() const;

  const Token& Now() const { return tokens_[position_]; }
  const Token& Look() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  bool Is(Token::Kind kind) const { return Now().kind == kind; }
  static bool Is(const Token& token, Token::Kind kind, std::string_view text) {
    return token.kind == kind && token.text == text;
  }
  bool IsOperator(std::string_view text) const { return Is(Now(), Token::Kind::kOperator, text); }
  bool IsWord(std::string_view text) const { return Is(Now(), Token::Kind::kName, text); }
  bool AcceptOperator(std::string_view text);
  bool AcceptWord(std::string_view text);
  void ExpectOperator(std::string_view text);
  std::string ExpectName();

  // What ends a tuple: the end of the tag, a closing parenthesis, or the word `end`.
  struct TupleRules {
    bool with_conditional = true;
    bool in_parentheses = false;
    std::string_view end{};
  };
  Expr Tuple(const TupleRules& rules);
  Expr Expression();
  Expr FilterChain(Expr value, bool starts_inline);
  // What may stand before = and in: names, tuples of them, and attributes of namespaces.
  Target AssignTarget(bool with_attributes, std::string_view end = "");
  int NameTarget();
  int NameId(const std::string& name);

  // Every name that is read is told here, for macros to learn whether they use `caller`.
  std::vector<std::vector<std::string>> read_names_;
  // Within `if`, filters and tests that do not exist are refused when they are reached, elsewhere
  // when the template is read.
  bool is_conditional_ = false;
  void RefuseUnknown() const;
  std::vector<std::string> names_;

 private:
  Expr Or();
  Expr And();
  Expr Not();
  Expr Compare();
  Expr Sum();
  Expr Concat();
  Expr Product();
  Expr Power();
  Expr Unary(bool with_filter);
  Expr Primary();
  Expr Postfix(Expr value);
  Expr FilterOrTest(Expr value);
  Expr Subscript(Expr value);
  Expr Subscribed(Expr value);
  Expr Call(Expr callee);
  Expr Test(Expr value);
  Expr List();
  Expr Dict();
  Expr Number();
  Expr Name();
  void CallArguments(Expr& call);
  std::string DottedName();
  const Builtin* Known(const Builtin* found, std::string_view what, const std::string& name);
  std::optional<Operator> CompareOperator();
  bool IsTupleEnd(std::string_view end) const;
  Target OneTarget(bool with_attributes);

  Expr Node(ExprKind kind, int line) const;
  void Add(Expr& parent, Expr child) const;
  Expr Parent(ExprKind kind, int line, Expr child) const;
  template <class Operand>
  Expr LeftToRight(std::initializer_list<std::pair<std::string_view, Operator>> operators,
                   Operand operand);

  std::vector<Token> tokens_;
  const std::string& source_;
  std::unordered_map<std::string, int> name_ids_;
  struct Unknown {
    int line;
    std::string what;
  };
  std::vector<Unknown> unknown_;
  size_t position_ = 0;
  int level_ = 0;

 protected:
  void Next() {
    if (position_ + 1 < tokens_.size()) ++position_;
  }
};

}  // namespace wideload::jinja
