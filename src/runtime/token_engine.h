// What an EngineLoop drives: an Engine of this process, or one in another.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "runtime/cached_prompt.h"
#include "runtime/job_runner.h"
#include "runtime/request.h"

namespace wideload::runtime {

class Engine;

// Of one thread, but for the sinks and callbacks. Functions of Engine's names do as these.
class TokenEngine {
 public:
  // As Engine's.
  using LogitsSink =
      std::function<void(RequestId, int64_t position, std::span<const float> logits)>;

  virtual ~TokenEngine() = default;
  // Takes a request whose prompt it computes itself.
  virtual RequestId Submit(Request request) = 0;
  // Takes one that goes on behind its computed prompt.
  virtual RequestId SubmitComputed(Request request, ComputedPrompt prompt) = 0;
  // Ends a request; unknown and ended ones are ignored.
  virtual void Cancel(RequestId id) = 0;
  // Whether the lease of its prompt lasts.
  virtual bool HasLease(RequestId id) const = 0;
  // Ends all leases; their requests must not run any more.
  virtual void DropLeases() = 0;
  // What the cache holds of a request with keeps_cache that has ended by its length.
  virtual std::optional<CachedSequence> Kept(RequestId id) const = 0;
  // What came of the requests since; an engine of this process computes an iteration for it.
  // Valid until the next call has returned. Errors: as Engine's; kRunFailed when it is gone.
  virtual std::span<const Event> Step(const std::function<void()>& meanwhile) = 0;
  // Nothing submitted that has not ended.
  virtual bool idle() const = 0;
  // Told of the logits of prompts that Submit took.
  virtual void SetLogitsSink(LogitsSink sink) = 0;
  // Requests that the last iteration was the first with, as far as it is known here.
  virtual std::span<const RequestId> admitted() const = 0;
  // How it does, as far as it is known here.
  virtual EngineFigures figures() const = 0;

  // The engine itself where it is of this process, else null.
  virtual Engine* local() = 0;
  // Of an engine elsewhere: nothing is there for Step until `wake`, which is called on any thread,
  // says so.
  virtual bool only_waits() const { return false; }
  virtual void SetWake(const std::function<void()>& /*wake*/) {}
};

// Of the engine's thread: how it does.
EngineFigures FiguresOf(const Engine& engine);
// That of an engine of this process, which must outlive it.
std::unique_ptr<TokenEngine> MakeLocalEngine(Engine& engine);

}  // namespace wideload::runtime
