// What computes prompts for an engine that generates alone: other engines.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "runtime/generation.h"
#include "runtime/request.h"

namespace wideload::runtime {

struct Job;

// What a context server has to do, and has done.
struct ContextFigures {
  int64_t num_waiting = 0;
  int64_t num_running = 0;
  int64_t num_held = 0;  // prompts that are computed and have not been fetched
  int64_t num_iterations = 0;
  int64_t num_prompts = 0;  // computed
  double kv_usage = 0;      // share of the blocks of all ranks' caches that are in use
  bool is_running = true;
  bool operator==(const ContextFigures&) const = default;
};

class PromptComputer {
 public:
  virtual ~PromptComputer() = default;
  // Has the job's prompt computed and its first token chosen. Its sink gets what came of it, on
  // any thread, as an EngineLoop would tell it; where the request goes on after that token, the
  // last delta has the lease of its prompt. Returns what cancels it, on any thread, as long as this
  // object lives; no effect on one that has ended. Any thread.
  virtual std::function<void()> Begin(Job job) = 0;
  // Of each of its engines, as far as is known here. Any thread.
  virtual std::vector<ContextFigures> figures() const = 0;
};

}  // namespace wideload::runtime
