#include "option_flags.h"

#include <fmt/format.h>

namespace wideload::apps {
namespace {

template <class Flags>
void AddRow(Command command, const config::OptionRow& row, Flags& flags) {
  std::string names{std::string_view(row.names)};
  std::string help{std::string_view(row.help)};
  if (!row.default_text.empty()) help += fmt::format(" (default: {})", row.default_text);
  const std::string key(LongName(row));
  const auto set = [&row, &flags, key](const std::string& name, const std::string& text) {
    SetOption(row, name, text, flags);
    flags.sources[key] = "command line";
  };
  if (config::ValueKind(row).empty()) {
    for (const std::string& off : OffSpellings(row)) names += ",!" + off;
    const auto set_bool = [set, key](bool value) { set(key, value ? "true" : "false"); };
    command.AddSwitch(names, set_bool, help).Group(config::GroupTitle(row.group));
    return;
  }
  const Option option =
      command.AddParsed({.names = names,
                         .help = help,
                         .kind = config::ValueKind(row),
                         .parse = set,
                         .value_text = [&row, &flags] { return ValueText(row, flags); }});
  option.Group(config::GroupTitle(row.group));
  if (row.default_text.empty()) option.ShowDefault();
}

}  // namespace

template <class Flags>
void AddOptions(Command command, config::Group group, Flags& flags) {
  for (const config::OptionRow& row : config::OptionTable())
    if (row.group == group) AddRow(command, row, flags);
}

template <class Flags>
void AddOption(Command command, std::string_view name, Flags& flags) {
  AddRow(command, config::FindOption(name), flags);
}

config::ConfigFile ApplyConfig(config::EngineFlags& engine, config::SamplingFlags* sampling) {
  config::ConfigFile file;
  if (engine.config_file.empty()) return file;
  ReadOrRefuse([&] {
    file = config::ReadConfigFile(engine.config_file);
    if (!engine.allow_unsupported) RefuseUnsupported(file);
    ApplyConfigFile(file, engine);
    if (sampling != nullptr) ApplyConfigFile(file, *sampling);
  });
  return file;
}

template void AddOptions(Command, config::Group, config::EngineFlags&);
template void AddOptions(Command, config::Group, config::SamplingFlags&);
template void AddOption(Command, std::string_view, config::EngineFlags&);
template void AddOption(Command, std::string_view, config::SamplingFlags&);

}  // namespace wideload::apps
