// The program `wideload`: parses the command line, runs one subcommand, turns errors into messages
// and exit codes.
#include <cstdio>
#include <cstdlib>

#include "base/error.h"
#include "command_line.h"
#include "commands.h"

int main(int argc, char** argv) {
  using namespace wideload;
  CLI::App app("wideload serves mixture-of-experts language models with wide expert parallelism.",
               "wideload");
  app.require_subcommand(1);
  apps::AddVersionOption(app);
  apps::AddEplb(app);
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
  return 0;
}
