// What every start says once: model, layout, kernels, memory, balancer.
#pragma once

#include <string>

#include "session.h"

namespace wideload::apps {

// One line: what is active. The session has an engine.
std::string StartLine(const EngineFlags& flags, const Session& session);

}  // namespace wideload::apps
