// How the weights of a session come into memory: packed for one process, shared by the processes of
// a host, or in a file that is mapped; and what they take.
#pragma once

#include <string>

#include "runtime/start/session.h"

namespace wideload::runtime {

// Names, types and shapes of all tensors of the folder, and bytes from the middle of some: two
// trainings of one model differ in any of them, and reading all weights would take as long as
// loading them.
std::string TensorsOf(const std::string& folder);

// What the kept parts of the weights take in memory. Of `options` mode and place_expert are set
// here. Errors: as LoadTransformer.
ModelBytes MeasureWeights(checkpoint::Checkpoint& weights, const model::ModelSpec& spec,
                          model::LoadOptions options);

// What the model takes in memory; experts in a file are not counted. Errors: what is wrong with
// names and shapes; kInvalid for options of weights that do not go together.
ModelBytes MeasureModel(const config::EngineFlags& flags, const Session& session);

// Refuses before work what this host's shared memory cannot hold, with the ranks' KV caches where
// these lie there.
void CheckSharedMemoryOf(const ProcessWorld& world, const EngineOptions& options,
                         const Session& session, bool shares_caches);

// Reads the weights of a process that is alone, with progress.
void LoadOnThreads(const config::EngineFlags& flags, Session& session);
// The ranks of a host read the experts together into shared memory, and the first of them the rest.
// All of it has lost its names before it is read: whoever is killed meanwhile leaves nothing.
// Collective.
void LoadOnProcesses(ProcessWorld& world, const config::EngineFlags& flags, Session& session);

}  // namespace wideload::runtime
