#include "tokenizer/spec_fields.h"

#include <algorithm>

namespace wideload::tokenizer {

void RefuseOtherFields(const JsonFields& fields, std::initializer_list<std::string_view> known) {
  for (const auto& [name, value] : fields.json().items())
    if (std::find(known.begin(), known.end(), name) == known.end())
      Throw(ErrorKind::kUnsupported, "{} is not supported; the fields allowed here are {}",
            fields.Where(name), fmt::join(known, ", "));
}

void RefuseOtherByteLevelFields(const JsonFields& fields) {
  // trim_offsets changes positions in the text, which are not reported here.
  RefuseOtherFields(fields, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
  fields.BoolOr("trim_offsets", true);
}

void RefuseUnsupported(const JsonFields& fields, std::string_view name, std::string_view allowed) {
  const Json* value = fields.Find(name);
  std::string found = value == nullptr ? "missing" : DumpJson(*value);
  if (found.size() > 80) found = found.substr(0, 77) + "...";
  Throw(ErrorKind::kUnsupported, "{} is {}; supported is {}", fields.Where(name), found, allowed);
}

const Json& ArrayOrEmpty(const JsonFields& fields, std::string_view name) {
  static const Json empty = Json::array();
  const Json* value = fields.Find(name);
  if (value == nullptr) return empty;
  if (!value->is_array()) fields.Refuse(name, "an array");
  return *value;
}

JsonFields Element(const JsonFields& fields, std::string_view name, size_t index) {
  const std::string source = fields.source() + ": ";
  const std::string path = fields.Where(name).substr(source.size());
  return JsonFields(fields.Required(name)[index], fields.source(),
                    fmt::format("{}[{}]", path, index));
}

}  // namespace wideload::tokenizer
