// JSON schemas as grammars of the values that they allow. Belongs to one thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/json_rules.h"
#include "grammar/schema_values.h"
#include "jinja/value.h"

namespace wideload::grammar {

inline constexpr size_t kMaxSchemas = 4000;     // in one document, those within others counted
inline constexpr size_t kMaxAlternatives = 64;  // of anyOf and oneOf
inline constexpr size_t kMaxEnumValues = 1024;
inline constexpr size_t kMaxNameBytes = 256;      // of a property
inline constexpr size_t kMaxPointerBytes = 4096;  // to a schema
inline constexpr size_t kMaxProperties = 1024;    // of one object

// Reads schemas of one document. Every value that the grammar allows is allowed by the schema; some
// that the schema allows are left out: properties come in the schema's order, none beside them
// unless additionalProperties says so, and JsonRules says how values are written. What a schema
// asks beyond that is refused, never ignored, but for annotations (title, description, default,
// examples, ...), which ask nothing. Source: JSON Schema 2020-12, core and validation.
class SchemaReader {
 public:
  // `document`: what $ref begins at; it must outlive the reader and stay where it is. `where` names
  // it in errors.
  SchemaReader(JsonRules& rules, const jinja::Value& document, std::string where)
      : rules_(rules), builder_(rules.builder()), document_(document), where_(std::move(where)) {}

  // The rule of the values that the schema allows, which is the document or a part of it, at
  // `pointer` (RFC 6901; "": the document). Errors: kUnsupported and kInvalid naming the document
  // and the pointer of what is refused.
  RuleId RuleOf(const jinja::Value& schema, const std::string& pointer);

  // The members of an object that the schema lists, in its order, and what else may follow.
  struct Member {
    std::string name;
    const jinja::Value* schema = nullptr;  // null: any value
    std::string pointer;
    bool is_required = false;
  };
  // All that an object may have.
  struct Members {
    std::vector<Member> listed;
    bool has_others = false;
    const jinja::Value* others = nullptr;  // their schema; null: any value
  };
  // Of the keywords of an object. Errors: as RuleOf.
  Members MembersOf(const jinja::Dict& schema, const std::string& pointer) const;
  // The schema itself, or what it refers to at last. `pointer` becomes that of the result. Errors:
  // as RuleOf.
  const jinja::Value& Resolved(const jinja::Value& schema, std::string& pointer) const;

 private:
  using Dict = jinja::Dict;
  struct Due {
    const jinja::Value* schema = nullptr;
    std::string pointer;
    RuleId rule = 0;
  };

  RuleId DueRuleOf(const jinja::Value& schema, const std::string& pointer);
  ExpressionId BodyOf(const jinja::Value& schema, const std::string& pointer);
  ExpressionId BodyOfDict(const Dict& schema, const std::string& pointer);
  const jinja::Value& TargetOf(const Dict& schema, std::string& pointer) const;
  void CheckKeywords(const Dict& schema, const std::string& pointer) const;
  void AllowBeside(std::string_view keyword, const Dict& schema, const std::string& pointer,
                   std::vector<std::string_view> allowed) const;
  ExpressionId Alternatives(std::string_view keyword, const Dict& schema,
                            const std::string& pointer);
  ExpressionId Enumeration(const Dict& schema, const std::string& pointer);
  std::vector<std::string> TypesOf(const Dict& schema, const std::string& pointer) const;
  void CheckOneOf(const jinja::Sequence& ways, const std::string& pointer);
  ExpressionId OfType(const std::string& type, const Dict& schema, const std::string& pointer);
  ExpressionId ObjectOf(const Dict& schema, const std::string& pointer);
  ExpressionId ArrayOf(const Dict& schema, const std::string& pointer);
  ExpressionId TextOf(const Dict& schema, const std::string& pointer);
  ExpressionId FormattedText(const std::string& format, const std::string& pointer);
  ExpressionId IntegerOf(const Dict& schema, const std::string& pointer);
  ExpressionId NumberOf(const Dict& schema, const std::string& pointer);
  std::optional<double> BoundOf(const Dict& schema, std::string_view keyword,
                                const std::string& pointer) const;
  ExpressionId CallOf(const jinja::Value* schema, const std::string& pointer);
  void CheckCount(size_t count, const std::string& pointer) const;
  uint32_t CountOf(const Dict& schema, std::string_view keyword, uint32_t fallback,
                   const std::string& pointer) const;

  [[noreturn]] void Refuse(const std::string& pointer, const std::string& wrong) const;

  JsonRules& rules_;
  GrammarBuilder& builder_;
  const jinja::Value& document_;
  std::string where_;
  std::map<const jinja::Value*, RuleId> rule_of_;
  std::vector<Due> due_;  // whose rules are not defined yet
  Disjointness disjointness_;
};

// The grammar of the values that `schema` allows. Errors: as SchemaReader and GrammarBuilder.
Grammar SchemaGrammar(const jinja::Value& schema, const std::string& where);
// Of any JSON object.
Grammar ObjectGrammar();
// Of one of these texts. Errors: as GrammarBuilder.
Grammar ChoiceGrammar(const std::vector<std::string>& texts);
// Of the texts that match the whole of `pattern`. Errors: as GrammarBuilder and PatternExpression.
Grammar PatternGrammar(std::string_view pattern, const std::string& where);

}  // namespace wideload::grammar
