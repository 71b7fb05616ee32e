// The flags of every command that runs the engine.
#pragma once

#include "command_line.h"
#include "config/flags.h"

namespace wideload::apps {

using config::EngineFlags;

void AddEngineFlags(Command command, EngineFlags& flags);

}  // namespace wideload::apps
