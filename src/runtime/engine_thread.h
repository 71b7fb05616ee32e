// An engine loop on a thread of its own: one of several engines of a process, of which one may fail
// and the others go on.
#pragma once

#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "base/wait.h"
#include "runtime/engine_loop.h"

namespace wideload::runtime {

class EngineThread {
 public:
  // `engine` and `tokenizer`, which may be null, must outlive it. `name` is that of the thread and,
  // with " server", of people: "context 0". `on_failure`: called on the thread when the engine has
  // failed and its requests have ended; may be empty.
  EngineThread(Engine& engine, const tokenizer::Tokenizer* tokenizer, std::string name,
               std::function<void()> on_failure = {});
  // The same with an engine that may be elsewhere.
  EngineThread(TokenEngine& engine, const tokenizer::Tokenizer* tokenizer, std::string name,
               std::function<void()> on_failure = {});
  // As Stop.
  ~EngineThread();

  // Runs from now on. Before it the loop may be told more.
  void Start();
  // Any thread. As EngineLoop's of that name; what is under way is counted.
  JobId Submit(Job job);
  // Ends every request, those to come included, with this reason, and waits for it. Of the thread
  // that calls Start and Stop.
  void EndAll(const std::string& reason);
  // Any thread: begins Stop.
  void AskToStop();
  // Ends what is under way, with errors, and the thread.
  void Stop();

  // What belongs to its thread may be called before Start only.
  EngineLoop& loop() { return loop_; }
  const EngineLoop& loop() const { return loop_; }
  // Any thread. Whether it takes jobs.
  bool is_running() const { return !loop_.has_ended(); }
  // Any thread. Jobs that have not ended.
  int64_t num_open() const { return *num_open_; }
  // What ended the engine; null: nothing. Once on_failure was called, or after Stop.
  std::exception_ptr failure() const;

 private:
  void Run();
  void Rest(int64_t& num_iterations);

  EngineLoop loop_;
  const std::string name_;
  const std::function<void()> on_failure_;
  const std::shared_ptr<std::atomic<int64_t>> num_open_;  // shared with the sinks of its jobs
  std::atomic<bool> is_stopping_{false};
  mutable std::mutex mutex_;  // guards the next two
  std::exception_ptr failure_;
  std::string end_reason_ = kEngineStopped;
  std::atomic<uint32_t> num_ends_asked_{0};
  EventWord num_ends_done_;
  std::jthread thread_;
};

}  // namespace wideload::runtime
