// What a generation server and its context servers say to each other of prompts, as bytes: same
// program on both sides. Pure.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/engine_loop.h"
#include "runtime/scheduler.h"

namespace wideload::runtime {

// Of a prompt that another server computes; of one connection, never used again.
using PromptId = int64_t;

// The first three go to a context server, the others come from it.
enum class MessageKind : int32_t {
  kBegin,    // compute a prompt
  kCancel,   // nobody waits for it any more
  kRelease,  // its blocks have been fetched, or nobody will fetch them
  kEnd,      // no prompt follows: end as after a run
  kDelta,    // what came of a prompt
  kSignal,   // this signal has asked the context server to end
  kFigures,  // how much it has to do
};

// One message between leaders of servers; which members mean anything, its kind says.
struct ServerMessage {
  MessageKind kind = MessageKind::kEnd;
  PromptId id = -1;                // of the first three, and of kDelta
  Job job;                         // of kBegin; without a sink
  Delta delta;                     // of kDelta; without a lease
  bool has_lease = false;          // of kDelta: blocks wait to be fetched, those of
  int32_t group = 0;               // this group of the context server
  std::vector<BlockTable> tables;  // and these tables
  int32_t number = 0;  // of kSignal the signal; of kEnd 1 where no server is gone, else 0
  ContextFigures figures;
};

// `bytes` is overwritten.
void WriteMessage(const ServerMessage& message, std::vector<std::byte>& bytes);
// What WriteMessage wrote. Times are those of this host. Errors: kCorrupt.
ServerMessage ReadMessage(std::span<const std::byte> bytes);

}  // namespace wideload::runtime
