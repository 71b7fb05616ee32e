// A fixed pool of named threads that runs one loop of tasks at a time. Which thread runs a task is
// not defined, so a task's result must depend on its index alone. Run may be called by one thread
// at a time; it allocates nothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/wait.h"

namespace wideload {

// A reference to a callable; does not own it, so it must outlive the call.
template <class Signature>
class FunctionRef;
template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>)
      FunctionRef(F&& f)  // NOLINT(google-explicit-constructor)
      : object_(const_cast<void*>(static_cast<const void*>(&f))),
        call_([](void* object, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<Args>(args)...);
        }) {}
  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

// Starts a thread of that name. Errors: kResource naming it and what limits how many there may be.
std::jthread StartThread(const std::string& name, std::function<void()> body);

class ThreadPool {
 public:
  // The caller of Run is one of the `num_threads`; num_threads - 1 threads are started, named
  // "name/i" (cut to 15 characters). `total_threads` is how many threads compete for the machine
  // (all ranks together; 0: num_threads): it chooses how waits are done. Errors: kResource when a
  // thread cannot be started; those that were are ended.
  ThreadPool(const std::string& name, int num_threads, int total_threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(threads_.size()) + 1; }

  // Adds 1 to `counter` for each task that ends, from now on: others can see that work gets done.
  // Must outlive the pool; not during Run.
  void CountProgress(std::atomic<uint32_t>& counter) { progress_ = &counter; }

  // Calls task(i, thread) once for each i in [0, num_tasks), in increasing order of start, and
  // returns when all are done. `thread` is in [0, num_threads()): an index into per-thread scratch.
  // Errors: rethrows what the first task, by index, has thrown; tasks after it may not have
  // started.
  void Run(int64_t num_tasks, FunctionRef<void(int64_t, int)> task);

  // Calls body(begin, end, thread) over [0, count) cut into pieces of at most `grain`.
  template <class Body>
  void RunRange(int64_t count, int64_t grain, Body&& body) {
    if (count <= 0) return;
    const auto piece = [&](int64_t i, int thread) {
      body(i * grain, std::min(count, (i + 1) * grain), thread);
    };
    Run((count + grain - 1) / grain, piece);
  }

 private:
  void ThreadMain(int thread);
  void WorkOn(int thread);
  void Do(const FunctionRef<void(int64_t, int)>& task, int64_t i, int thread);
  void CountTask();
  void NoteFailure(int64_t i) noexcept;
  void End();

  WaitLadder ladder_;
  const FunctionRef<void(int64_t, int)>* task_ = nullptr;
  int64_t num_tasks_ = 0;
  std::atomic<uint32_t>* progress_ = nullptr;
  std::atomic<int64_t> next_task_{0};
  EventWord round_;  // raised once per Run
  EventWord done_;   // number of pool threads that finished, over all rounds
  std::atomic<bool> stop_{false};
  std::mutex failure_mutex_;
  std::exception_ptr failure_;  // of the round, of the task failed_task_
  int64_t failed_task_ = 0;
  std::vector<std::jthread> threads_;
};

// Names the calling thread (shown by top -H and debuggers), cut to 15 characters.
void NameThisThread(const std::string& name);

// CPU time that the calling thread has used, nanoseconds.
int64_t ThreadCpuNs();

}  // namespace wideload
