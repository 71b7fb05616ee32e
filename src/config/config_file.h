// A configuration file: YAML with the keys of TensorRT-LLM's LLM-API options, judged key by key.
// Pure; any thread.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/known_keys.h"
#include "config/yaml.h"

namespace wideload::config {

// A key of the file and what becomes of it.
struct JudgedSetting {
  YamlSetting setting;
  std::string key;  // today's spelling of setting.key
  KeyClass key_class = KeyClass::kEffective;
  const OptionRow* row = nullptr;  // of an effective one: what it sets
  std::string reason;              // of the others, as KnownKey::reason
};

struct ConfigFile {
  std::string source;  // what messages call it
  std::vector<JudgedSetting> settings;
};

// What every key of the file does. Errors, with source, line and key: those of ParseYamlSettings;
// kInvalid for an unknown key, with the nearest known one, for a value that an option does not
// allow, for two keys that set the same, and for sizes that contradict each other.
ConfigFile ParseConfigFile(std::string_view text, std::string_view source);
// The same of values that have been read.
ConfigFile JudgeSettings(std::span<const YamlSetting> settings, std::string_view source);
// The same of a file. Errors: those, and of ReadFile.
ConfigFile ReadConfigFile(const std::string& path);

// What a run tells: a line for each key with an old spelling or not supported, one for all without
// effect.
std::vector<std::string> Notes(const ConfigFile& file);

// Errors: kUnsupported naming the first key that is not supported, and what lets a run start.
void RefuseUnsupported(const ConfigFile& file);

// Sets the options of Flags that the file names and the command line has not set.
// Flags: EngineFlags or SamplingFlags.
template <class Flags>
void ApplyConfigFile(const ConfigFile& file, Flags& flags);

}  // namespace wideload::config
