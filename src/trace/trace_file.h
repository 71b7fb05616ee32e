// Tracks of all processes of a run as one document of Chrome's trace events, which Perfetto and
// chrome://tracing open. Pure.
#pragma once

#include <span>
#include <string_view>

#include "base/thread_pool.h"
#include "trace/trace.h"

namespace wideload::trace {

// Hands the document to `append` piece by piece: {"traceEvents": [...], "otherData": {...}}. Each
// span is a complete event ("X"), times in microseconds since the first one of all tracks; the
// engine and each rank are a process (pid 0, rank + 1), their tracks its threads. Clocks of hosts
// are brought together by their wall clocks. otherData tells how many spans each track has lost.
// Source: "Trace Event Format", Google.
void WriteTraceJson(std::span<const TrackData> tracks, FunctionRef<void(std::string_view)> append);

}  // namespace wideload::trace
