// `wideload eplb`: placements for expert-parallel serving from recorded loads, for this engine and
// for others.
#include "commands.h"
#include "eplb_commands.h"

namespace wideload::apps {

void AddEplb(Command program) {
  const Command group =
      program.Subcommand("eplb",
                         "plan, simulate, repair, diagnose, report, convert and check "
                         "placements of experts from recorded loads");
  group.RequireSubcommand();
  for (const auto add : {AddEplbReport, AddEplbPlan, AddEplbConvert, AddEplbCheck, AddEplbSimulate,
                         AddEplbRepair, AddEplbDiagnose})
    add(group);
}

}  // namespace wideload::apps
