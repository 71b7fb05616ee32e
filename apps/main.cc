// The program `wideload`: parses the command line, runs one subcommand, turns errors into messages
// and exit codes.
#include <fmt/ranges.h>

#include <string>
#include <vector>

#include "command_line.h"
#include "commands.h"
#include "interrupt.h"

namespace {

// The subcommand that was reached, the program itself if none.
const CLI::App& Reached(const CLI::App& app) {
  const std::vector<CLI::App*> parsed = app.get_subcommands();
  return parsed.empty() ? app : Reached(*parsed.back());
}

// "wideload: error: ..." with what was found and, for a subcommand or a value, what is allowed.
std::string FailureMessage(const CLI::App* app, const CLI::Error& error) {
  const CLI::App& reached = Reached(*app);
  std::string message = error.what();
  if (error.get_name() == "RequiredError" && !reached.get_subcommands({}).empty()) {
    const std::vector<std::string> rest = app->remaining(true);
    message = rest.empty() ? "a subcommand is required"
                           : fmt::format("\"{}\" is no subcommand", rest.front());
    std::vector<std::string> names;
    for (const CLI::App* sub : reached.get_subcommands({})) names.push_back(sub->get_name());
    message += fmt::format("; allowed: {}", fmt::join(names, ", "));
  } else if (error.get_name() == "ConversionError") {
    for (const CLI::Option* option : reached.get_options())
      if (message.find(option->get_name()) != std::string::npos)
        message += fmt::format("; allowed: {}", option->get_type_name());
  }
  std::string command = reached.get_parent() == nullptr ? "" : " " + reached.get_name();
  return fmt::format("wideload: error: {}\nRun wideload{} --help for the options\n", message,
                     command);
}

int Run(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::RuntimeError& e) {
    return e.get_exit_code();  // a run of several processes that has said what there is to say
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  } catch (const std::exception& e) {
    return wideload::apps::ReportFailure(e);
  }
  return wideload::apps::InterruptExitCode();
}

}  // namespace

int main(int argc, char** argv) {
  using namespace wideload;
  CLI::App app("wideload serves mixture-of-experts language models with wide expert parallelism.",
               "wideload");
  app.require_subcommand(1);
  app.failure_message(FailureMessage);
  apps::AddVersionOption(app);
  for (const auto add :
       {apps::AddGenerate, apps::AddChat, apps::AddLogits, apps::AddTokenize, apps::AddInspect,
        apps::AddBench, apps::AddDemo, apps::AddEplb, apps::AddDoctor})
    add(app);
  return apps::FinishOutput(Run(app, argc, argv));
}
