// What a front door says to context servers and generation servers, and they to it, as bytes: same
// program on both sides. Pure.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "grammar/grammar.h"
#include "runtime/job_runner.h"
#include "runtime/scheduler.h"

namespace wideload::runtime {

// Of a request that another server has to do with; of one connection, never used again.
using PromptId = int64_t;

// The first three go to a context server, the others but the end come from it. To a generation
// server go kBegin, kGenerate, kCancel and kEnd.
enum class MessageKind : int32_t {
  kBegin,    // compute a prompt; to a generation server: all of a request
  kCancel,   // nobody waits for it any more
  kRelease,  // its blocks have been fetched, or nobody will fetch them; of a generation server, too
  kEnd,      // no prompt follows: end as after a run
  kDelta,    // what came of a prompt
  kSignal,   // this signal has asked the server to end
  kFigures,  // how much it has to do
  kGenerate,       // go on with a request behind its prompt
  kEvents,         // what iterations did for requests
  kEngineFigures,  // how the engine does
};

// One message between leaders of servers; which members mean anything, its kind says.
struct ServerMessage {
  MessageKind kind = MessageKind::kEnd;
  PromptId id = -1;                // of the first three, of kDelta and kGenerate
  Job job;                         // of kBegin and kGenerate; without a sink, a grammar as below
  Delta delta;                     // of kDelta and kGenerate; without a lease
  bool has_lease = false;          // of kDelta: blocks wait to be fetched, those of
  int32_t group = 0;               // this group of the context server, likewise of kGenerate
  std::vector<BlockTable> tables;  // and these tables
  // Of kSignal the signal; of kEnd 1 where no server is gone, else 0; of kGenerate the context
  // server that has computed the prompt.
  int32_t number = 0;
  ContextFigures figures;     // of kFigures
  std::vector<Event> events;  // of kEvents; their ids are PromptIds
  EngineFigures engine;       // of kEngineFigures
  // Of kBegin and kGenerate to a generation server: that of the request; null: it has none. Two
  // with the same number are the same.
  std::shared_ptr<const grammar::Grammar> grammar;
  uint64_t grammar_id = 0;
};

// `bytes` is overwritten.
void WriteMessage(const ServerMessage& message, std::vector<std::byte>& bytes);
// What WriteMessage wrote. Times are those of this host. Errors: kCorrupt.
ServerMessage ReadMessage(std::span<const std::byte> bytes);

}  // namespace wideload::runtime
