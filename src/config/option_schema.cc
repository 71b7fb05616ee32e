#include "config/option_schema.h"

#include <cmath>
#include <map>
#include <string>

#include "base/error.h"
#include "config/known_keys.h"

namespace wideload::config {
namespace {

// A key, and those below it.
struct Node {
  Json value;  // the schema of a value that is no map; null: only a map
  std::string description;
  bool has_any_below = false;
  std::map<std::string, Node> below;
};

Node& At(Node& root, std::string_view key) {
  Node* node = &root;
  for (size_t begin = 0; begin <= key.size();) {
    const size_t end = std::min(key.find('.', begin), key.size());
    node = &node->below[std::string(key.substr(begin, end - begin))];
    begin = end + 1;
  }
  return *node;
}

Json NumberSchema(const char* type, const Limits& limits) {
  Json schema = {{"type", {type, "null"}}};
  const auto add = [&](double limit, bool is_excluded, const char* with, const char* without) {
    if (!std::isfinite(limit)) return;
    const bool is_whole = limit == std::floor(limit);
    const char* const name = is_excluded ? without : with;
    if (is_whole)
      schema[name] = static_cast<int64_t>(limit);
    else
      schema[name] = limit;
  };
  add(limits.min, limits.min_excluded, "minimum", "exclusiveMinimum");
  add(limits.max, limits.max_excluded, "maximum", "exclusiveMaximum");
  return schema;
}

Json ValueSchema(const OptionRow& row) {
  const std::string kind = ValueKind(row);
  if (row.is_trtllm_fraction)
    return NumberSchema("number", {.min = 0, .max = 1, .min_excluded = true, .max_excluded = true});
  if (kind.empty()) return {{"type", {"boolean", "null"}}};
  if (kind.starts_with("INT")) return NumberSchema("integer", row.limits);
  if (kind.starts_with("FLOAT")) return NumberSchema("number", row.limits);
  Json schema = {{"type", {"string", "null"}}};
  if (!row.choices.empty()) {
    schema["enum"] = Json::array({nullptr});
    for (const std::string_view choice : CommaWords(row.choices)) schema["enum"].push_back(choice);
  }
  return schema;
}

Json SchemaOf(const Node& node) {
  Json schema = Json::object();
  if (!node.below.empty() || node.has_any_below) {
    schema["type"] = {"object", "null"};
    schema["additionalProperties"] = node.has_any_below;
    for (const auto& [name, below] : node.below) schema["properties"][name] = SchemaOf(below);
    if (!node.value.is_null()) schema = {{"anyOf", {node.value, schema}}};
  } else if (!node.value.is_null()) {
    schema = node.value;
  }
  if (!node.description.empty()) schema["description"] = node.description;
  return schema;
}

}  // namespace

Json OptionSchema() {
  Node root;
  for (const OptionRow& row : OptionTable()) {
    if (row.is_flag_only) continue;
    Node& node = At(root, KeyOf(row));
    node.value = ValueSchema(row);
    node.description = fmt::format("{} (default: {}); {}", std::string_view(row.help),
                                   DefaultText(row), LongName(row));
  }
  for (const KnownKey& known : KnownKeys()) {
    Node& node = At(root, known.key);
    node.description = fmt::format(
        "{}: {}", known.key_class == KeyClass::kNoEffect ? "no effect" : "not supported yet",
        known.reason);
    for (const std::string_view below : CommaWords(known.below)) {
      if (below == "*")
        node.has_any_below = true;
      else
        node.below.try_emplace(std::string(below));
    }
  }
  Json schema = SchemaOf(root);
  schema["$schema"] = "https://json-schema.org/draft/2020-12/schema";
  schema["title"] = "wideload configuration file (--config)";
  return schema;
}

}  // namespace wideload::config
