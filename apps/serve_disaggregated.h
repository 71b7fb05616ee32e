// `wideload serve disaggregated`: prefill and decode on engines of their own.
#pragma once

#include "command_line.h"

namespace wideload::apps {

// To `serve`.
void AddServeDisaggregated(Command serve);

}  // namespace wideload::apps
