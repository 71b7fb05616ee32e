// Engines that compute prompts for another one, each on a thread of its own. One that fails ends
// what it had under way; the others go on.
#pragma once

#include <atomic>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "runtime/context_router.h"
#include "runtime/engine_loop.h"
#include "runtime/prompt_computer.h"

namespace wideload::runtime {

class ContextEngines final : public PromptComputer {
 public:
  // One or more, which must outlive this; leases of their prompts must not.
  ContextEngines(std::span<Engine* const> engines, ContextRouting routing);
  // Ends what is under way, with errors, and the threads.
  ~ContextEngines() override;

  // Where no engine runs the sink gets an error.
  std::function<void()> Begin(Job job) override;
  std::vector<ContextFigures> figures() const override;

  // Any thread. i < the number of engines.
  EngineLoop& loop(size_t i) { return members_[i]->loop; }
  // Whether an engine takes jobs, likewise.
  bool is_running(size_t i) const { return !members_[i]->loop.has_ended(); }
  // Whether one of them does.
  bool is_any_running() const;
  // Ends the threads, as the destructor does.
  void Stop();
  // What ended an engine; null: nothing. After Stop.
  std::exception_ptr failure(size_t i) const { return members_[i]->failure; }

 private:
  struct Member {
    explicit Member(Engine& engine) : loop(engine, nullptr) {}
    EngineLoop loop;
    // Prompts under way, and those that were computed.
    struct Counts {
      std::atomic<int64_t> num_open{0};
      std::atomic<int64_t> num_prompts{0};
    };
    std::shared_ptr<Counts> counts = std::make_shared<Counts>();
    std::exception_ptr failure;
    std::jthread thread;
  };
  Member& Choose(const Request& request);
  void Run(Member& member, size_t index);

  std::vector<std::unique_ptr<Member>> members_;
  ContextRouter router_;
  std::atomic<bool> is_stopping_{false};
};

}  // namespace wideload::runtime
