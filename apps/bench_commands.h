// The commands of `wideload bench` beside throughput, one per file.
#pragma once

#include "command_line.h"

namespace wideload::apps {

void AddBenchServe(Command bench);
void AddBenchPrepareDataset(Command bench);

}  // namespace wideload::apps
