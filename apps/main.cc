// The program `wideload`: parses the command line, runs one subcommand, turns errors into messages
// and exit codes.
#include <cstdio>
#include <cstdlib>

#include "base/error.h"
#include "command_line.h"
#include "commands.h"
#include "interrupt.h"

int main(int argc, char** argv) {
  using namespace wideload;
  CLI::App app("wideload serves mixture-of-experts language models with wide expert parallelism.",
               "wideload");
  app.require_subcommand(1);
  apps::AddVersionOption(app);
  for (const auto add :
       {apps::AddGenerate, apps::AddChat, apps::AddLogits, apps::AddTokenize, apps::AddInspect,
        apps::AddBench, apps::AddDemo, apps::AddEplb, apps::AddDoctor})
    add(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);
    return code == 0 ? 0 : 2;
  } catch (const Error& e) {
    std::fprintf(stderr, "wideload: error: %s\n", e.what());
    return ExitCode(e.kind());
  } catch (const std::exception& e) {
    std::fprintf(stderr, "wideload: internal error: %s\n", e.what());
    return 1;
  }
  return apps::InterruptExitCode();
}
