// The subcommands of the program, one per file of this folder. To add one: declare it here, add it to the table in main.cc.
#pragma once

#include <CLI/CLI.hpp>

namespace wideload::apps {

void AddEplb(CLI::App& app);

}  // namespace wideload::apps
