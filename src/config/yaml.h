// YAML files of settings, read as a flat list. Pure; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace wideload::config {

// One value of the document: "moe_config.max_num_tokens", "9216", line 12.
struct YamlSetting {
  // What stands at the key.
  enum class Kind { kScalar, kNull, kList, kEmptyMap };
  std::string key;   // the keys of the maps it lies in, joined by dots
  std::string text;  // a scalar as written, without quotes; a list as "[1, 2]"; else ""
  Kind kind = Kind::kScalar;
  int line = 0;  // from 1
};

// The values of a document, in its order; empty of an empty document. `source` is what messages
// call it. Errors: kInvalid for a key that a map has twice, with both lines; kCorrupt for what is
// not YAML, not a map, more than one document, an alias, an anchor or a tag; more than 1 MiB, 16
// levels, 20,000 values, or 200 letters of a key.
std::vector<YamlSetting> ParseYamlSettings(std::string_view text, std::string_view source);

}  // namespace wideload::config
