// What the subcommands share: spelling of options, the --json rule, output to a path or "-".
#pragma once

#include <CLI/CLI.hpp>
#include <exception>
#include <string>
#include <string_view>

namespace wideload::apps {

// "ep-size" -> "--ep-size,--ep_size"; with a short form "m" -> "-m,--model". Every option is
// declared through this.
std::string Names(std::string_view dashed, std::string_view short_form = "");

// One function per subcommand file: declares the subcommand and its options, and sets a callback
// that runs it. Errors leave as wideload::Error; main prints them and exits with ExitCode(kind).
void AddVersionOption(CLI::App& app);

// Prints "wideload: error: ..." and returns the exit code that goes with it, that of an interrupt
// if there was one.
int ReportFailure(const std::exception& failure);

// Writes out what standard output still holds. Returns `code`, or 1 with a message when that was 0
// and something could not be written: a result that is lost is a failed run.
int FinishOutput(int code);

}  // namespace wideload::apps
