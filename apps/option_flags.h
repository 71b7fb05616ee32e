// The rows of the table of options (config/option_table.h) as flags of a command.
#pragma once

#include <string_view>

#include "command_line.h"
#include "config/config_file.h"
#include "config/option_table.h"

namespace wideload::apps {

// Adds the options of a group, or the one with this name, which set members of `flags`.
// Flags: config::EngineFlags or config::SamplingFlags. The option is one of Flags.
template <class Flags>
void AddOptions(Command command, config::Group group, Flags& flags);
template <class Flags>
void AddOption(Command command, std::string_view name, Flags& flags);

// Reads the file of --config, if there is one, and sets what it names and the command line has not
// set; sampling: null for a command without. Refuses as ReadOrRefuse does.
config::ConfigFile ApplyConfig(config::EngineFlags& engine, config::SamplingFlags* sampling);

}  // namespace wideload::apps
