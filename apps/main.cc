// The program `wideload`: reads the command line and runs the command it names.
#include "base/mapping_table.h"
#include "command_line.h"
#include "commands.h"
#include "interrupt.h"

int main(int argc, char** argv) {
  using namespace wideload;
  apps::CleanUpOnSignals();
  NameUnreadableMappings();
  apps::Program program(
      "wideload",
      "wideload serves mixture-of-experts language models with wide expert parallelism.");
  for (const auto add :
       {apps::AddGenerate, apps::AddChat, apps::AddServe, apps::AddLogits, apps::AddEval,
        apps::AddTokenize, apps::AddApplyTemplate, apps::AddInspect, apps::AddBench, apps::AddDemo,
        apps::AddEplb, apps::AddDoctor, apps::AddPlanLayout, apps::AddConfig})
    add(program.command());
  return apps::FinishOutput(program.Run(argc, argv));
}
