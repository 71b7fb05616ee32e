#include <algorithm>
#include <initializer_list>

#include "base/error.h"
#include "tokenizer/template_program.h"

namespace wideload::tokenizer {
namespace {

constexpr int kMaxDepth = 64;       // of statements and expressions, together
constexpr int kMaxTreeDepth = 256;  // a row of operators makes a deep tree

using Kind = TemplateToken::Kind;

class TemplateParser {
 public:
  TemplateParser(std::vector<TemplateChunk> chunks, const std::string& source)
      : chunks_(std::move(chunks)), source_(source) {}

  std::vector<Statement> Parse() {
    std::vector<Statement> statements = Body();
    if (chunk_ < chunks_.size()) Refuse(ErrorKind::kCorrupt, Quoted() + " without its begin");
    return statements;
  }

 private:
  // Counts the nesting for as long as it lives.
  struct Level {
    explicit Level(TemplateParser& p) : parser(p) {
      if (++parser.depth_ > kMaxDepth)
        parser.Refuse(ErrorKind::kUnsupported,
                      fmt::format("nesting deeper than {} is not supported", kMaxDepth));
    }
    ~Level() { --parser.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    TemplateParser& parser;
  };

  [[noreturn]] void Refuse(ErrorKind kind, const std::string& what) const {
    Throw(kind, "{}: line {}: {}", source_, line_, what);
  }
  [[noreturn]] void RefuseToken() {
    Refuse(ErrorKind::kUnsupported, Quoted() + " is not supported here");
  }

  const TemplateToken& Token() {
    const TemplateToken& token = chunks_[chunk_].tokens[token_];
    line_ = token.line;
    return token;
  }
  std::string Quoted() {
    return Token().kind == Kind::kEnd ? "the end of the tag" : "\"" + Token().text + "\"";
  }
  bool Is(Kind kind, std::string_view text) { return Token().kind == kind && Token().text == text; }
  bool Accept(Kind kind, std::string_view text) {
    if (!Is(kind, text)) return false;
    ++token_;
    return true;
  }
  void Expect(Kind kind, std::string_view text) {
    if (!Accept(kind, text))
      Refuse(ErrorKind::kUnsupported,
             fmt::format("{} where only \"{}\" is supported", Quoted(), text));
  }
  std::string ExpectName() {
    if (Token().kind != Kind::kName) RefuseToken();
    return chunks_[chunk_].tokens[token_++].text;
  }
  void EndTag() {
    if (Token().kind != Kind::kEnd) RefuseToken();
    ++chunk_;
    token_ = 0;
  }
  bool AtBlock(std::initializer_list<std::string_view> names) {
    if (chunk_ >= chunks_.size() || chunks_[chunk_].kind != TemplateChunk::Kind::kBlock)
      return false;
    const TemplateToken& first = chunks_[chunk_].tokens[0];
    return first.kind == Kind::kName &&
           std::find(names.begin(), names.end(), first.text) != names.end();
  }

  // Statements up to a block that ends them.
  std::vector<Statement> Body() {
    const Level level(*this);
    std::vector<Statement> body;
    while (chunk_ < chunks_.size() && !AtBlock({"endfor", "endif", "elif", "else"}))
      body.push_back(One());
    return body;
  }

  static Statement Make(StatementKind kind, std::string text = "") {
    Statement statement;
    statement.kind = kind;
    statement.text = std::move(text);
    return statement;
  }

  Statement One() {
    TemplateChunk& chunk = chunks_[chunk_];
    if (chunk.kind == TemplateChunk::Kind::kText) {
      ++chunk_;
      return Make(StatementKind::kText, std::move(chunk.text));
    }
    if (chunk.kind == TemplateChunk::Kind::kOutput) {
      Statement output = Make(StatementKind::kOutput);
      output.expr = Expression();
      EndTag();
      return output;
    }
    if (Accept(Kind::kName, "for")) return For();
    if (Accept(Kind::kName, "if")) return If();
    if (Accept(Kind::kName, "set")) return Set();
    Refuse(ErrorKind::kUnsupported, fmt::format("the statement {} is not supported", Quoted()));
  }

  void RequireBlock(std::string_view name) {
    if (!AtBlock({name})) Refuse(ErrorKind::kCorrupt, fmt::format("a block without its {}", name));
    Expect(Kind::kName, name);
    EndTag();
  }

  Statement For() {
    Statement statement = Make(StatementKind::kFor, ExpectName());
    Expect(Kind::kName, "in");
    statement.expr = Expression();
    EndTag();
    statement.branches.push_back({.body = Body()});
    if (AtBlock({"else"})) Refuse(ErrorKind::kUnsupported, "for with else is not supported");
    RequireBlock("endfor");
    return statement;
  }

  Statement If() {
    Statement statement = Make(StatementKind::kIf);
    while (true) {
      Expr condition = Expression();
      EndTag();
      statement.branches.push_back({.condition = std::move(condition), .body = Body()});
      if (!AtBlock({"elif"})) break;
      Expect(Kind::kName, "elif");
    }
    if (AtBlock({"else"})) {
      Expect(Kind::kName, "else");
      EndTag();
      statement.branches.push_back(
          {.condition = {.kind = ExprKind::kLiteralBool, .number = 1}, .body = Body()});
    }
    RequireBlock("endif");
    return statement;
  }

  Statement Set() {
    Statement statement = Make(StatementKind::kSet, ExpectName());
    Expect(Kind::kOperator, "=");
    statement.expr = Expression();
    EndTag();
    return statement;
  }

  Expr Node(ExprKind kind, std::string text, std::vector<Expr> args) {
    int depth = 0;
    for (const Expr& arg : args) depth = std::max(depth, arg.depth + 1);
    if (depth > kMaxTreeDepth)
      Refuse(ErrorKind::kUnsupported,
             fmt::format("an expression of depth over {} is not supported", kMaxTreeDepth));
    return {.kind = kind,
            .text = std::move(text),
            .args = std::move(args),
            .line = line_,
            .depth = depth};
  }
  Expr Binary(ExprKind kind, std::string op, Expr left, Expr right) {
    std::vector<Expr> args;
    args.push_back(std::move(left));
    args.push_back(std::move(right));
    return Node(kind, std::move(op), std::move(args));
  }
  Expr Unary(ExprKind kind, std::string text, Expr operand) {
    std::vector<Expr> args;
    args.push_back(std::move(operand));
    return Node(kind, std::move(text), std::move(args));
  }

  // A row of operators of one precedence, left to right.
  template <class Operand>
  Expr LeftToRight(Kind kind, std::initializer_list<std::string_view> operators, Operand operand) {
    Expr left = operand();
    while (true) {
      const auto op = std::find_if(operators.begin(), operators.end(),
                                   [&](std::string_view o) { return Is(kind, o); });
      if (op == operators.end()) return left;
      ++token_;
      left = Binary(ExprKind::kBinary, std::string(*op), std::move(left), operand());
    }
  }

  Expr Expression() {
    const Level level(*this);
    Expr value = LeftToRight(Kind::kName, {"or"}, [&] {
      return LeftToRight(Kind::kName, {"and"}, [&] { return Not(); });
    });
    if (Is(Kind::kName, "if")) RefuseToken();
    return value;
  }

  Expr Not() {
    const Level level(*this);
    if (Accept(Kind::kName, "not")) return Unary(ExprKind::kNot, "", Not());
    return Comparison();
  }

  Expr Comparison() {
    Expr left = Sum();
    std::string op;
    if (Accept(Kind::kName, "not")) {
      Expect(Kind::kName, "in");
      op = "not in";
    } else if (Accept(Kind::kName, "in")) {
      op = "in";
    } else {
      for (const std::string_view known : {"==", "!=", "<", ">", "<=", ">="})
        if (op.empty() && Accept(Kind::kOperator, known)) op = known;
    }
    return op.empty() ? std::move(left) : Binary(ExprKind::kBinary, op, std::move(left), Sum());
  }

  Expr Sum() {
    return LeftToRight(Kind::kOperator, {"+", "-"}, [&] {
      return LeftToRight(Kind::kOperator, {"~"}, [&] {
        return LeftToRight(Kind::kOperator, {"*", "%"}, [&] { return Postfix(); });
      });
    });
  }

  Expr Postfix() {
    const Level level(*this);
    if (Accept(Kind::kOperator, "-")) return Unary(ExprKind::kNegate, "", Postfix());
    Expr value = Primary();
    while (true) {
      if (Accept(Kind::kOperator, ".")) {
        value = Unary(ExprKind::kAttribute, ExpectName(), std::move(value));
        if (Is(Kind::kOperator, "("))
          Refuse(ErrorKind::kUnsupported, "the method " + value.text + "() is not supported");
      } else if (Accept(Kind::kOperator, "[")) {
        Expr index = Expression();
        Expect(Kind::kOperator, "]");
        value = Binary(ExprKind::kItem, "", std::move(value), std::move(index));
      } else if (Accept(Kind::kOperator, "|")) {
        value = Filter(std::move(value));
      } else if (Accept(Kind::kName, "is")) {
        value = Test(std::move(value));
      } else {
        return value;
      }
    }
  }

  Expr Filter(Expr value) {
    const std::string name = ExpectName();
    if (name != "trim" && name != "length")
      Refuse(ErrorKind::kUnsupported, fmt::format("the filter {} is not supported", name));
    return Unary(ExprKind::kFilter, name, std::move(value));
  }

  Expr Test(Expr value) {
    const bool is_negated = Accept(Kind::kName, "not");
    const std::string name = ExpectName();
    if (name != "defined" && name != "undefined" && name != "none" && name != "string")
      Refuse(ErrorKind::kUnsupported, fmt::format("the test \"is {}\" is not supported", name));
    Expr test = Unary(ExprKind::kTest, name, std::move(value));
    return is_negated ? Unary(ExprKind::kNot, "", std::move(test)) : std::move(test);
  }

  Expr Primary() {
    const TemplateToken token = Token();
    if (token.kind == Kind::kEnd) RefuseToken();
    ++token_;
    if (token.kind == Kind::kString) return Node(ExprKind::kLiteralString, token.text, {});
    if (token.kind == Kind::kInt) return Integer(token.text);
    if (token.kind == Kind::kName) return Name(token.text);
    if (token.text == "(") {
      Expr value = Expression();
      Expect(Kind::kOperator, ")");
      return value;
    }
    --token_;
    RefuseToken();
  }

  Expr Integer(const std::string& digits) {
    if (digits.size() > 9 || digits.find_first_not_of("0123456789") != std::string::npos)
      Refuse(ErrorKind::kUnsupported,
             fmt::format("the number {} is not supported; at most 9 digits are", digits));
    Expr value = Node(ExprKind::kLiteralInt, "", {});
    value.number = std::stoll(digits);
    return value;
  }

  Expr Name(const std::string& name) {
    if (name == "none" || name == "None") return Node(ExprKind::kLiteralNone, "", {});
    for (const std::string_view known : {"true", "True", "false", "False"}) {
      if (name != known) continue;
      Expr value = Node(ExprKind::kLiteralBool, "", {});
      value.number = known == "true" || known == "True";
      return value;
    }
    if (!Is(Kind::kOperator, "(")) return Node(ExprKind::kName, name, {});
    if (name != "raise_exception")
      Refuse(ErrorKind::kUnsupported, fmt::format("the function {}() is not supported", name));
    Expect(Kind::kOperator, "(");
    Expr text = Expression();
    Expect(Kind::kOperator, ")");
    return Unary(ExprKind::kRaise, "", std::move(text));
  }

  std::vector<TemplateChunk> chunks_;
  const std::string& source_;
  size_t chunk_ = 0;
  size_t token_ = 0;
  int depth_ = 0;
  int line_ = 1;
};

}  // namespace

TemplateProgram ParseTemplate(std::string_view text, const std::string& source) {
  return {.statements = TemplateParser(LexTemplate(text, source), source).Parse()};
}

}  // namespace wideload::tokenizer
