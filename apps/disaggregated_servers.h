// `wideload serve disaggregated` under mpirun or srun: each rank of each server is a process. The
// first ones are those of the generation servers, of whom the first one's leader has the front
// door.
#pragma once

#include <cstdint>
#include <optional>

#include "config/disaggregated_file.h"
#include "engine_flags.h"
#include "runtime/server_router.h"
#include "serve_flags.h"

namespace wideload::apps {

struct DisaggregatedRun {
  const config::DisaggregatedFile& file;
  const EngineFlags& context;
  const EngineFlags& generation;
  const ServeFlags& front;
};

// Of every process. Errors: kUnsupported when they cannot meet. What ends the run otherwise is told
// here, and the process then ends by EndSilently.
void RunServersOnProcesses(const DisaggregatedRun& run);

// What the file says of the context servers' router.
runtime::ServerRouting RoutingOf(const config::ServerSide& side);

// The longest rest of a prompt that generation servers compute themselves; nothing: none. Errors:
// kUnsupported where the file asks for it and the model cannot keep prefixes.
std::optional<int64_t> MaxOwnPrefill(const config::DisaggregatedFile& file,
                                     const Session& generation);

// Errors: kUnsupported when a session was asked for expert statistics or a trace.
void RefuseOutputs(const Session& start);

}  // namespace wideload::apps
