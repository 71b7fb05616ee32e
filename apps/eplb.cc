// wideload eplb: the balancer's tools.
#include "commands.h"
#include "eplb_commands.h"

namespace wideload::apps {

void AddEplb(CLI::App& app) {
  CLI::App* eplb = app.add_subcommand("eplb", "Expert load balancing: plan, simulate, repair");
  eplb->require_subcommand(1);
  AddEplbSimulate(*eplb);
}

}  // namespace wideload::apps
