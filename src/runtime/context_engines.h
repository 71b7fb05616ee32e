// Engines that compute prompts for others, each on a thread of its own. One that fails ends what it
// had under way; the others go on.
#pragma once

#include <atomic>
#include <exception>
#include <memory>
#include <span>
#include <vector>

#include "runtime/engine_thread.h"
#include "runtime/prompt_computer.h"
#include "runtime/server_router.h"

namespace wideload::runtime {

class ContextEngines final : public PromptComputer {
 public:
  // One or more, which must outlive this; leases of their prompts must not.
  ContextEngines(std::span<Engine* const> engines, ServerRouting routing);
  // Ends what is under way, with errors, and the threads.
  ~ContextEngines() override;

  // Where no engine runs the sink gets an error.
  std::function<void()> Begin(Job job) override;
  std::vector<ContextFigures> figures() const override;

  // Any thread. i < the number of engines.
  EngineLoop& loop(size_t i) { return members_[i]->thread.loop(); }
  // Whether an engine takes jobs, likewise.
  bool is_running(size_t i) const { return members_[i]->thread.is_running(); }
  // Whether one of them does.
  bool is_any_running() const;
  // Ends the threads, as the destructor does.
  void Stop();
  // What ended an engine; null: nothing. After Stop.
  std::exception_ptr failure(size_t i) const { return members_[i]->thread.failure(); }

 private:
  struct Member {
    Member(Engine& engine, size_t index)
        : thread(engine, nullptr, fmt::format("context {}", index)) {}
    std::shared_ptr<std::atomic<int64_t>> num_prompts =  // computed; shared with the jobs' sinks
        std::make_shared<std::atomic<int64_t>>(0);
    EngineThread thread;
  };
  Member& Choose(const Request& request);

  std::vector<std::unique_ptr<Member>> members_;
  ServerRouter router_;
};

}  // namespace wideload::runtime
