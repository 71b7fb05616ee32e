// What computes prompts for an engine that generates alone: other engines.
#pragma once

#include <functional>

#include "runtime/generation.h"
#include "runtime/request.h"

namespace wideload::runtime {

struct Job;

class PromptComputer {
 public:
  virtual ~PromptComputer() = default;
  // Has the job's prompt computed and its first token chosen. Its sink gets what came of it, on
  // any thread, as an EngineLoop would tell it; where the request goes on after that token, the
  // last delta has the lease of its prompt. Returns what cancels it, on any thread, as long as this
  // object lives; no effect on one that has ended. Any thread.
  virtual std::function<void()> Begin(Job job) = 0;
};

}  // namespace wideload::runtime
