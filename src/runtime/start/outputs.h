// What a run writes beside its results: expert statistics and the trace.
#pragma once

#include "runtime/start/session.h"

namespace wideload::runtime {

// Refuses what cannot be written, before the model is loaded. Of rank 0.
void PrepareOutputs(const config::EngineFlags& flags, Session& session);

// Of these iterations of the session's engine, which is there.
std::unique_ptr<statistics::Recorder> MakeRecorder(const Session& session,
                                                   const statistics::IterationRange& range);
// Once the engine is there.
void StartRecording(Session& session);
// Before it is made, on every rank: where all threads of this process write what they do.
void StartTrace(bool is_tracing, Session& session, EngineOptions& options);

// All of it that was asked for. Errors: kIo; comm::PeerLost.
void WriteOutputs(Session& session);

}  // namespace wideload::runtime
