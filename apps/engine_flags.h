// The flags of every command that runs the engine.
#pragma once

#include "command_line.h"
#include "config/flags.h"

namespace wideload::apps {

using config::EngineFlags;

void AddEngineFlags(Command command, EngineFlags& flags);

// --backend of TensorRT-LLM's command lines, of which pytorch alone is allowed: it asks for
// nothing.
void AddBackendFlag(Command command);

// A model's folder that a command line has in another place than --model. Errors: kInvalid naming
// both when both are given.
void TakeModelFolder(const std::string& folder, std::string_view place, EngineFlags& flags);

}  // namespace wideload::apps
