// `wideload eplb`: placements for expert-parallel serving from recorded loads, for this engine and
// for others.
#include "commands.h"
#include "eplb_commands.h"

namespace wideload::apps {

void AddEplb(CLI::App& app) {
  CLI::App* group =
      app.add_subcommand("eplb",
                         "plan, simulate, repair, diagnose, report, convert and check "
                         "placements of experts from recorded loads");
  group->require_subcommand(1);
  for (const auto add : {AddEplbReport, AddEplbPlan, AddEplbConvert, AddEplbCheck, AddEplbSimulate,
                         AddEplbRepair, AddEplbDiagnose})
    add(*group);
}

}  // namespace wideload::apps
