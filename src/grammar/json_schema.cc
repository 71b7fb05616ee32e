#include "grammar/json_schema.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "grammar/pattern.h"
#include "grammar/schema_values.h"

namespace wideload::grammar {
namespace {

using jinja::Dict;
using jinja::Value;
using Names = std::vector<std::string_view>;

// They ask nothing of a value.
constexpr std::array<std::string_view, 14> kAnnotations = {
    "title", "description", "default",  "examples",  "example", "$comment",    "$schema",
    "$id",   "deprecated",  "readOnly", "writeOnly", "$defs",   "definitions", "discriminator"};
// What is understood, in the order in which it is told.
constexpr std::array<std::string_view, 25> kKeywords = {"type",
                                                        "properties",
                                                        "required",
                                                        "additionalProperties",
                                                        "enum",
                                                        "const",
                                                        "items",
                                                        "prefixItems",
                                                        "minItems",
                                                        "maxItems",
                                                        "anyOf",
                                                        "oneOf",
                                                        "allOf",
                                                        "$ref",
                                                        "minLength",
                                                        "maxLength",
                                                        "pattern",
                                                        "format",
                                                        "minimum",
                                                        "maximum",
                                                        "exclusiveMinimum",
                                                        "exclusiveMaximum",
                                                        "nullable",
                                                        "uniqueItems",
                                                        "unevaluatedProperties"};

bool IsAnnotation(std::string_view keyword) {
  return std::ranges::find(kAnnotations, keyword) != kAnnotations.end();
}

std::string_view NameOf(const Dict::Entry& entry) {
  return entry.key.Str() != nullptr ? std::string_view(entry.key.Str()->text())
                                    : std::string_view();
}

const std::string* TextIn(const Value& value) {
  return value.Str() != nullptr ? &value.Str()->text() : nullptr;
}

// "%25" is "%", "~1" is "/", "~0" is "~".
std::string DecodedStep(std::string_view step) {
  std::string result;
  for (size_t i = 0; i < step.size(); ++i) {
    unsigned byte = 0;
    const char* const hex = step.data() + i + 1;
    if (step[i] == '%' && i + 2 < step.size() &&
        std::from_chars(hex, hex + 2, byte, 16).ptr == hex + 2) {
      result += static_cast<char>(byte);
      i += 2;
    } else if (step[i] == '~' && i + 1 < step.size()) {
      result += step[++i] == '1' ? '/' : '~';
    } else {
      result += step[i];
    }
  }
  return result;
}

}  // namespace

void SchemaReader::Refuse(const std::string& pointer, const std::string& wrong) const {
  Throw(ErrorKind::kUnsupported, "{}: {} {}", where_, pointer.empty() ? "the schema" : pointer,
        wrong);
}

RuleId SchemaReader::RuleOf(const Value& schema, const std::string& pointer) {
  const RuleId rule = DueRuleOf(schema, pointer);
  while (!due_.empty()) {
    const Due next = std::move(due_.back());
    due_.pop_back();
    if (next.schema->Map() != nullptr) CheckKeywords(*next.schema->Map(), next.pointer);
    builder_.Define(next.rule, BodyOf(*next.schema, next.pointer));
  }
  return rule;
}

// Defined later: schemas may refer to each other in chains that are long.
RuleId SchemaReader::DueRuleOf(const Value& schema, const std::string& pointer) {
  const auto found = rule_of_.find(&schema);
  if (found != rule_of_.end()) return found->second;
  if (pointer.size() > kMaxPointerBytes)
    Refuse(pointer.substr(0, 128), fmt::format("begins a place of more than {} bytes, which are "
                                               "supported",
                                               kMaxPointerBytes));
  if (rule_of_.size() >= kMaxSchemas)
    Refuse(pointer, fmt::format("is one schema more than {}, which are supported", kMaxSchemas));
  const RuleId rule = builder_.AddRule();
  rule_of_.emplace(&schema, rule);
  due_.push_back({.schema = &schema, .pointer = pointer, .rule = rule});
  return rule;
}

ExpressionId SchemaReader::CallOf(const Value* schema, const std::string& pointer) {
  return builder_.Call(schema != nullptr ? DueRuleOf(*schema, pointer) : rules_.AnyValue());
}

ExpressionId SchemaReader::BodyOf(const Value& schema, const std::string& pointer) {
  if (schema.Bool() != nullptr) {
    if (!*schema.Bool()) Refuse(pointer, "is false: no value satisfies it");
    return builder_.Call(rules_.AnyValue());
  }
  if (schema.Map() == nullptr) Refuse(pointer, "is no schema: it must be an object or a boolean");
  const Value* nullable = MemberOf(schema, "nullable");
  const ExpressionId body = BodyOfDict(*schema.Map(), pointer);
  return nullable != nullptr && IsTrue(*nullable) ? builder_.Choice({body, builder_.Bytes("null")})
                                                  : body;
}

void SchemaReader::CheckKeywords(const Dict& schema, const std::string& pointer) const {
  for (const Dict::Entry& entry : schema.entries()) {
    const std::string_view name = NameOf(entry);
    if (IsAnnotation(name) || std::ranges::find(kKeywords, name) != kKeywords.end()) continue;
    Refuse(Below(pointer, name.substr(0, 64)),
           fmt::format("is not supported; supported are {}, and what asks nothing of a value: {}",
                       fmt::join(kKeywords, ", "), fmt::join(kAnnotations, ", ")));
  }
}

// Refuses keywords that would have to hold together with this one.
void SchemaReader::AllowBeside(std::string_view keyword, const Dict& schema,
                               const std::string& pointer, Names allowed) const {
  for (const Dict::Entry& entry : schema.entries()) {
    const std::string_view name = NameOf(entry);
    if (name == keyword || name == "nullable" || IsAnnotation(name) ||
        std::ranges::find(allowed, name) != allowed.end())
      continue;
    Refuse(Below(pointer, name), fmt::format("is not supported beside {}", keyword));
  }
}

ExpressionId SchemaReader::BodyOfDict(const Dict& schema, const std::string& pointer) {
  if (schema.Find("$ref") != nullptr) {
    AllowBeside("$ref", schema, pointer, {});
    std::string target_pointer = pointer;
    const Value& target = TargetOf(schema, target_pointer);
    return builder_.Call(DueRuleOf(target, target_pointer));
  }
  for (const std::string_view keyword : {"anyOf", "oneOf", "allOf"})
    if (schema.Find(keyword) != nullptr) return Alternatives(keyword, schema, pointer);
  if (schema.Find("enum") != nullptr || schema.Find("const") != nullptr)
    return Enumeration(schema, pointer);
  const std::vector<std::string> types = TypesOf(schema, pointer);
  if (types.empty()) return builder_.Call(rules_.AnyValue());
  std::vector<ExpressionId> ways;
  for (const std::string& type : types) ways.push_back(OfType(type, schema, pointer));
  return builder_.Choice(std::move(ways));
}

const Value& SchemaReader::TargetOf(const Dict& schema, std::string& pointer) const {
  const std::string at = Below(pointer, "$ref");
  const Value* reference = schema.Find("$ref");
  const std::string* text = TextIn(*reference);
  if (text == nullptr) Refuse(at, "is no text");
  if (text->size() > kMaxPointerBytes)
    Refuse(at,
           fmt::format("has {} bytes; at most {} are supported", text->size(), kMaxPointerBytes));
  std::string_view rest = *text;
  if (!rest.starts_with('#') || (rest.size() > 1 && rest[1] != '/'))
    Refuse(at, "does not begin with #/: only references within the schema are supported");
  rest.remove_prefix(1);
  pointer = std::string(rest);
  const Value* target = &document_;
  while (!rest.empty()) {
    rest.remove_prefix(1);
    const std::string_view raw = rest.substr(0, rest.find('/'));
    rest.remove_prefix(raw.size());
    const std::string step = DecodedStep(raw);
    if (target->Seq() != nullptr) {
      size_t index = 0;
      const char* const end = step.data() + step.size();
      const bool is_index = !step.empty() && std::from_chars(step.data(), end, index).ptr == end;
      target =
          is_index && index < target->Seq()->items.size() ? &target->Seq()->items[index] : nullptr;
    } else {
      target = MemberOf(*target, step);
    }
    if (target == nullptr)
      Refuse(at, fmt::format("is \"{}\", which is not there", text->substr(0, 128)));
  }
  return *target;
}

const Value& SchemaReader::Resolved(const Value& schema, std::string& pointer) const {
  constexpr int kMaxSteps = 64;
  const Value* result = &schema;
  for (int i = 0; MemberOf(*result, "$ref") != nullptr; ++i) {
    if (i == kMaxSteps) Refuse(pointer, "refers to itself");
    CheckKeywords(*result->Map(), pointer);
    AllowBeside("$ref", *result->Map(), pointer, {});
    result = &TargetOf(*result->Map(), pointer);
  }
  return *result;
}

// One of several must hold, not two.
void SchemaReader::CheckOneOf(const jinja::Sequence& ways, const std::string& pointer) {
  std::vector<const Value*> resolved;
  for (size_t i = 0; i < ways.items.size(); ++i) {
    std::string at = Below(pointer, std::to_string(i));
    resolved.push_back(&Resolved(ways.items[i], at));
  }
  for (size_t i = 0; i < resolved.size(); ++i)
    for (size_t k = 0; k < i; ++k)
      if (!disjointness_.AreDisjoint(*resolved[k], *resolved[i]))
        Refuse(pointer, fmt::format("has the alternatives {} and {}, which one value might satisfy "
                                    "both; supported are those of other types, or with a required "
                                    "property of other const or enum; or use anyOf",
                                    k, i));
}

ExpressionId SchemaReader::Alternatives(std::string_view keyword, const Dict& schema,
                                        const std::string& pointer) {
  AllowBeside(keyword, schema, pointer, {});
  const std::string at = Below(pointer, keyword);
  const jinja::Sequence* ways = schema.Find(keyword)->Seq();
  if (ways == nullptr || ways->items.empty()) Refuse(at, "is no list of schemas");
  const size_t most = keyword == "allOf" ? 1 : kMaxAlternatives;
  if (ways->items.size() > most)
    Refuse(at, fmt::format("has {} schemas; at most {} are supported", ways->items.size(), most));
  if (keyword == "oneOf") CheckOneOf(*ways, at);
  std::vector<ExpressionId> parts;
  for (size_t i = 0; i < ways->items.size(); ++i)
    parts.push_back(CallOf(&ways->items[i], Below(at, std::to_string(i))));
  return builder_.Choice(std::move(parts));
}

ExpressionId SchemaReader::Enumeration(const Dict& schema, const std::string& pointer) {
  const Value* one = schema.Find("const");
  const std::string_view keyword = one != nullptr ? "const" : "enum";
  AllowBeside(keyword, schema, pointer, {"type"});
  const std::string at = Below(pointer, keyword);
  const jinja::Sequence* list = one != nullptr ? nullptr : schema.Find("enum")->Seq();
  if (one == nullptr && list == nullptr) Refuse(at, "is no list");
  const std::span<const Value> values = one != nullptr ? std::span(one, 1) : std::span(list->items);
  if (values.size() > kMaxEnumValues)
    Refuse(at,
           fmt::format("has {} values; at most {} are supported", values.size(), kMaxEnumValues));
  std::vector<std::string> types;
  const bool is_typed = schema.Find("type") != nullptr;
  if (is_typed) types = TypesOf(schema, pointer);
  std::vector<ExpressionId> ways;
  for (const Value& value : values) {
    const bool is_allowed = !is_typed || std::ranges::any_of(types, [&](const std::string& type) {
      return IsOfType(TypeName(value), type);
    });
    if (is_allowed) ways.push_back(rules_.Literal(value));
  }
  if (ways.empty()) Refuse(at, "has no value of the type");
  return builder_.Choice(std::move(ways));
}

// Without a type the keywords say for which types it asks something: others are left out.
std::vector<std::string> SchemaReader::TypesOf(const Dict& schema,
                                               const std::string& pointer) const {
  static constexpr std::array<std::string_view, 7> kTypes = {
      "string", "integer", "number", "boolean", "null", "array", "object"};
  const Value* type = schema.Find("type");
  const std::string at = Below(pointer, "type");
  std::vector<std::string> types;
  const auto add = [&](const Value& value) {
    const std::string* text = TextIn(value);
    if (text == nullptr || std::ranges::find(kTypes, *text) == kTypes.end())
      Refuse(at, fmt::format("names no type; types are {}", fmt::join(kTypes, ", ")));
    if (std::ranges::find(types, *text) == types.end()) types.push_back(*text);
  };
  if (type != nullptr && type->Seq() != nullptr) {
    for (const Value& value : type->Seq()->items) add(value);
    if (types.empty()) Refuse(at, "is an empty list");
    // An integer is a number.
    if (std::ranges::find(types, "number") != types.end()) std::erase(types, "integer");
  } else if (type != nullptr) {
    add(*type);
  } else {
    const auto has = [&](Names keywords) {
      return std::ranges::any_of(keywords, [&](auto word) { return schema.Find(word) != nullptr; });
    };
    if (has({"properties", "required", "additionalProperties", "unevaluatedProperties"}))
      types.emplace_back("object");
    if (has({"items", "prefixItems", "minItems", "maxItems", "uniqueItems"}))
      types.emplace_back("array");
    if (has({"minLength", "maxLength", "pattern", "format"})) types.emplace_back("string");
    if (has({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}))
      types.emplace_back("number");
  }
  return types;
}

ExpressionId SchemaReader::OfType(const std::string& type, const Dict& schema,
                                  const std::string& pointer) {
  if (type == "object") return ObjectOf(schema, pointer);
  if (type == "array") return ArrayOf(schema, pointer);
  if (type == "string") return TextOf(schema, pointer);
  if (type == "integer") return IntegerOf(schema, pointer);
  if (type == "number") return NumberOf(schema, pointer);
  if (type == "null") return builder_.Bytes("null");
  return builder_.Choice({builder_.Bytes("true"), builder_.Bytes("false")});
}

Grammar SchemaGrammar(const Value& schema, const std::string& where) {
  GrammarBuilder builder;
  JsonRules rules(builder);
  const RuleId root = SchemaReader(rules, schema, where).RuleOf(schema, "");
  try {
    return builder.Build(root);
  } catch (const Error& error) {
    Throw(error.kind(), "{}: {}", where, error.what());
  }
}

Grammar ObjectGrammar() {
  GrammarBuilder builder;
  JsonRules rules(builder);
  return builder.Build(rules.AnyObject());
}

Grammar ChoiceGrammar(const std::vector<std::string>& texts) {
  GrammarBuilder builder;
  std::vector<ExpressionId> ways;
  for (const std::string& text : texts) ways.push_back(builder.Bytes(text));
  const RuleId root = builder.AddRule();
  builder.Define(root, builder.Choice(std::move(ways)));
  return builder.Build(root);
}

Grammar PatternGrammar(std::string_view pattern, const std::string& where) {
  GrammarBuilder builder;
  const WriteCharacter write = [&](const tokenizer::CodePointSet& set) {
    return builder.Characters(set);
  };
  const RuleId root = builder.AddRule();
  builder.Define(root, PatternExpression(pattern, where, false, builder, write));
  try {
    return builder.Build(root);
  } catch (const Error& error) {
    Throw(error.kind(), "{}: {}", where, error.what());
  }
}

}  // namespace wideload::grammar
