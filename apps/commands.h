// The subcommands of the program, one per file of this folder. To add one: declare it here, add it
// to the list in main.cc.
#pragma once

#include <CLI/CLI.hpp>

namespace wideload::apps {

void AddGenerate(CLI::App& app);
void AddChat(CLI::App& app);
void AddLogits(CLI::App& app);
void AddTokenize(CLI::App& app);
void AddInspect(CLI::App& app);
void AddBench(CLI::App& app);
void AddDemo(CLI::App& app);
void AddEplb(CLI::App& app);
void AddDoctor(CLI::App& app);

}  // namespace wideload::apps
