// `wideload config`: what can be configured.
#include <iostream>

#include "commands.h"
#include "config/option_page.h"

namespace wideload::apps {
namespace {

struct DocsCommand {};

void PrintDocs(const DocsCommand&) { std::cout << config::OptionPage(); }

}  // namespace

void AddConfig(Command program) {
  const Command group = program.Subcommand("config", "what can be configured");
  group.RequireSubcommand();
  group.Subcommand("docs", "all options of the engine and of sampling, in Markdown")
      .Runs<DocsCommand>(PrintDocs);
}

}  // namespace wideload::apps
