#include <algorithm>

#include "jinja/ast.h"
#include "jinja/expression_parser.h"
#include "jinja/hidden_names.h"

namespace wideload::jinja {
namespace {

using Kind = Token::Kind;
using EndWords = std::initializer_list<std::string_view>;

class TemplateParser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Program Parse() {
    Program program;
    program.statements = Body({});
    program.names = std::move(names_);
    FindHiddenNames(program);
    return program;
  }

 private:
  // Restores what the parser knows of its surroundings: filters in `if` are forgiven, in a loop
  // `break` is allowed. A body that is a function of its own forgets them.
  struct Surroundings {
    explicit Surroundings(TemplateParser& p)
        : parser(p), was_conditional(p.is_conditional_), was_loop(p.is_loop_) {}
    ~Surroundings() {
      parser.is_conditional_ = was_conditional;
      parser.is_loop_ = was_loop;
    }
    Surroundings(const Surroundings&) = delete;
    Surroundings& operator=(const Surroundings&) = delete;
    TemplateParser& parser;
    const bool was_conditional;
    const bool was_loop;
  };

  Statement Make(StatementKind kind) const {
    Statement statement;
    statement.kind = kind;
    statement.line = Now().line;
    return statement;
  }

  void EndBlock() {
    if (!Is(Kind::kBlockEnd)) RefuseToken();
    Next();
  }

  // Statements up to a block that begins with one of `ends`, whose word is the next token.
  std::vector<Statement> Body(EndWords ends) {
    const Level level(*this);
    std::vector<Statement> body;
    while (!Is(Kind::kEnd)) {
      if (Is(Kind::kData)) {
        body.push_back(Make(StatementKind::kText));
        body.back().text = Value::Text(Now().text, false);
        Next();
      } else if (Is(Kind::kOutputBegin)) {
        Next();
        body.push_back(Make(StatementKind::kOutput));
        body.back().expr = Tuple({});
        if (!Is(Kind::kOutputEnd)) RefuseToken();
        Next();
      } else {
        Next();
        if (std::any_of(ends.begin(), ends.end(), [&](auto word) { return IsWord(word); }))
          return body;
        body.push_back(One());
        EndBlock();
      }
      RefuseUnknown();
    }
    if (ends.size() > 0)
      Refuse(ErrorKind::kCorrupt, fmt::format("a block without its {}", *(ends.end() - 1)));
    return body;
  }

  // The same, after the end of the block's opening; takes the only end word, too.
  std::vector<Statement> WholeBody(std::string_view end) {
    EndBlock();
    std::vector<Statement> body = Body({end});
    Next();
    return body;
  }

  Statement One() {
    static constexpr std::pair<std::string_view, Statement (TemplateParser::*)()> kStatements[] = {
        {"for", &TemplateParser::For},        {"if", &TemplateParser::If},
        {"set", &TemplateParser::Set},        {"macro", &TemplateParser::Macro},
        {"call", &TemplateParser::CallBlock}, {"filter", &TemplateParser::FilterBlock},
        {"with", &TemplateParser::With},      {"generation", &TemplateParser::Generation},
        {"break", &TemplateParser::Leave},    {"continue", &TemplateParser::Leave},
        {"print", &TemplateParser::Print}};
    if (!Is(Kind::kName)) RefuseToken();
    for (const auto& [word, parse] : kStatements)
      if (IsWord(word)) return (this->*parse)();
    for (const std::string_view word : {"else", "elif", "endif", "endfor", "endset", "endmacro",
                                        "endcall", "endfilter", "endwith", "endgeneration"})
      if (IsWord(word)) Refuse(ErrorKind::kCorrupt, fmt::format("\"{}\" without its begin", word));
    Refuse(ErrorKind::kUnsupported,
           fmt::format("the statement \"{}\" is not supported", Now().text));
  }

  Statement For() {
    Statement statement = Make(StatementKind::kFor);
    const Surroundings surroundings(*this);
    Next();
    statement.target = AssignTarget(false, "in");
    if (NamesLoop(statement.target))
      Refuse(ErrorKind::kCorrupt, "\"loop\" cannot be the variable of a for");
    if (!AcceptWord("in")) RefuseToken();
    statement.expr = Tuple({.with_conditional = false, .end = "recursive"});
    statement.has_test = AcceptWord("if");
    if (statement.has_test) statement.test = Expression();
    statement.is_recursive = AcceptWord("recursive");
    EndBlock();
    is_conditional_ = false;
    is_loop_ = true;
    statement.body = Body({"else", "endfor"});
    if (AcceptWord("else")) {
      is_loop_ = surroundings.was_loop;
      EndBlock();
      statement.otherwise = Body({"endfor"});
    }
    Next();
    return statement;
  }

  bool NamesLoop(const Target& target) const {
    if (target.kind == Target::Kind::kTuple)
      return std::any_of(target.items.begin(), target.items.end(),
                         [&](const Target& item) { return NamesLoop(item); });
    return names_[static_cast<size_t>(target.name)] == "loop";
  }

  Statement If() {
    Statement statement = Make(StatementKind::kIf);
    const Surroundings surroundings(*this);
    is_conditional_ = true;
    do {
      Next();
      Branch branch;
      branch.condition = Tuple({.with_conditional = false});
      EndBlock();
      branch.body = Body({"elif", "else", "endif"});
      statement.branches.push_back(std::move(branch));
    } while (IsWord("elif"));
    if (AcceptWord("else")) {
      EndBlock();
      statement.branches.emplace_back();
      statement.branches.back().condition.constant.data = true;
      statement.branches.back().body = Body({"endif"});
    }
    Next();
    return statement;
  }

  Statement Set() {
    Statement statement = Make(StatementKind::kSet);
    Next();
    statement.target = AssignTarget(true);
    if (AcceptOperator("=")) {
      statement.expr = Tuple({});
      return statement;
    }
    statement.kind = StatementKind::kSetBlock;

    statement.expr.kind = ExprKind::kBody;
    statement.expr = FilterChain(std::move(statement.expr), false);
    const Surroundings surroundings(*this);
    is_conditional_ = false;
    statement.body = WholeBody("endset");
    return statement;
  }

  Statement Macro() {
    Statement statement = Make(StatementKind::kMacro);
    Next();
    auto macro = std::make_shared<MacroNode>();
    macro->name = Now().text;
    macro->name_id = NameTarget();
    Signature(*macro);
    MacroBody(*macro, "endmacro");
    statement.macro = std::move(macro);
    return statement;
  }

  Statement CallBlock() {
    Statement statement = Make(StatementKind::kCallBlock);
    Next();
    auto caller = std::make_shared<MacroNode>();
    caller->name = "caller";
    if (IsOperator("(")) Signature(*caller);
    statement.expr = Expression();
    if (statement.expr.kind != ExprKind::kCall)
      Refuse(ErrorKind::kCorrupt, "a call block must call something");
    MacroBody(*caller, "endcall");
    statement.macro = std::move(caller);
    return statement;
  }

  void Signature(MacroNode& macro) {
    read_names_.emplace_back();
    ExpectOperator("(");
    while (!IsOperator(")")) {
      if (!macro.parameters.empty()) ExpectOperator(",");
      const std::string name = Now().text;
      macro.parameters.push_back(NameTarget());
      const auto& names = macro.parameter_names;
      if (std::find(names.begin(), names.end(), name) != names.end())
        Refuse(ErrorKind::kCorrupt, fmt::format("two parameters \"{}\"", name));
      macro.parameter_names.push_back(name);
      if (AcceptOperator("="))
        macro.defaults.push_back(Expression());
      else if (!macro.defaults.empty())
        Refuse(ErrorKind::kCorrupt, "a parameter without default after one with default");
    }
    Next();
    read_names_.pop_back();
  }

  void MacroBody(MacroNode& macro, std::string_view end) {
    const Surroundings surroundings(*this);
    is_conditional_ = false;
    is_loop_ = false;
    read_names_.emplace_back();
    macro.body = WholeBody(end);
    const auto uses = [&](std::string_view name) {
      const auto has = [&](const std::vector<std::string>& names) {
        return std::find(names.begin(), names.end(), name) != names.end();
      };
      return has(read_names_.back()) && !has(macro.parameter_names);
    };
    macro.uses_caller = uses("caller");
    macro.uses_kwargs = uses("kwargs");
    macro.uses_varargs = uses("varargs");
    read_names_.pop_back();
  }

  Statement FilterBlock() {
    Statement statement = Make(StatementKind::kFilterBlock);
    Next();
    Expr body;
    body.kind = ExprKind::kBody;
    statement.expr = FilterChain(std::move(body), true);
    const Surroundings surroundings(*this);
    is_conditional_ = false;
    statement.body = WholeBody("endfilter");
    return statement;
  }

  Statement With() {
    Statement statement = Make(StatementKind::kWith);
    Next();
    while (!Is(Kind::kBlockEnd)) {
      if (!statement.branches.empty()) ExpectOperator(",");
      Branch branch;
      branch.target = AssignTarget(false);
      ExpectOperator("=");
      branch.condition = Expression();
      statement.branches.push_back(std::move(branch));
    }
    const Surroundings surroundings(*this);
    is_conditional_ = false;
    statement.body = WholeBody("endwith");
    return statement;
  }

  // transformers marks with it what the model is to be trained on; here its body is printed.
  Statement Generation() {
    Statement statement = Make(StatementKind::kScope);
    Next();
    const Surroundings surroundings(*this);
    is_conditional_ = false;
    is_loop_ = false;
    statement.body = WholeBody("endgeneration");
    return statement;
  }

  Statement Leave() {
    Statement statement = Make(IsWord("break") ? StatementKind::kBreak : StatementKind::kContinue);
    if (!is_loop_) Refuse(ErrorKind::kCorrupt, fmt::format("\"{}\" outside of a loop", Now().text));
    Next();
    return statement;
  }

  Statement Print() {
    Statement statement = Make(StatementKind::kOutput);
    Next();
    // Several expressions are printed one after the other.
    statement.expr.kind = ExprKind::kConcat;
    statement.expr.line = Now().line;
    while (!Is(Kind::kBlockEnd)) {
      if (!statement.expr.args.empty()) ExpectOperator(",");
      statement.expr.args.push_back(Expression());
    }
    return statement;
  }

  bool is_loop_ = false;
};

}  // namespace

Program ParseTemplate(std::string_view text, const std::string& source) {
  return TemplateParser(Lex(text, source), source).Parse();
}

}  // namespace wideload::jinja
