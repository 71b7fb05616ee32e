// The subcommands of `wideload eplb`, one per file.
#pragma once

#include <CLI/CLI.hpp>

namespace wideload::apps {

void AddEplbSimulate(CLI::App& eplb);
void AddEplbRepair(CLI::App& eplb);

}  // namespace wideload::apps
