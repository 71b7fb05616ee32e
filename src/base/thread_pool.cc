#include "base/thread_pool.h"

#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace wideload {
namespace {

constexpr auto kForever = [] { return true; };

}  // namespace

ThreadPool::ThreadPool(const std::string& name, int num_threads, int total_threads)
    : ladder_(WaitLadder::For(std::max(num_threads, total_threads))) {
  WIDELOAD_CHECK(num_threads >= 1, "a pool of {} threads", num_threads);
  try {
    for (int i = 1; i < num_threads; ++i)
      threads_.push_back(StartThread(fmt::format("{}/{}", name, i), [this, i] { ThreadMain(i); }));
  } catch (...) {
    End();
    throw;
  }
}

ThreadPool::~ThreadPool() { End(); }

void ThreadPool::End() {
  stop_.store(true, std::memory_order_release);
  round_.Increment();
  threads_.clear();
}

void ThreadPool::Run(int64_t num_tasks, FunctionRef<void(int64_t, int)> task) {
  if (threads_.empty() || num_tasks <= 1) {
    for (int64_t i = 0; i < num_tasks; ++i) {
      task(i, 0);
      CountTask();
    }
    return;
  }
  task_ = &task;
  num_tasks_ = num_tasks;
  next_task_.store(0, std::memory_order_relaxed);
  const uint32_t all_done = done_.Load() + static_cast<uint32_t>(threads_.size());
  round_.Increment();
  WorkOn(0);
  WaitFor(
      done_, ladder_, [&](uint32_t done) { return done == all_done; }, kForever);
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void ThreadPool::ThreadMain(int thread) {
  uint32_t seen = 0;
  while (true) {
    WaitFor(
        round_, ladder_, [&](uint32_t round) { return round != seen; }, kForever);
    ++seen;
    if (stop_.load(std::memory_order_acquire)) return;
    WorkOn(thread);
    done_.Increment();
  }
}

void ThreadPool::WorkOn(int thread) {
  while (true) {
    const int64_t i = next_task_.fetch_add(1, std::memory_order_relaxed);
    if (i >= num_tasks_) return;
    Do(*task_, i, thread);
  }
}

void ThreadPool::Do(const FunctionRef<void(int64_t, int)>& task, int64_t i, int thread) {
  try {
    task(i, thread);
  } catch (...) {
    NoteFailure(i);
  }
  CountTask();
}

void ThreadPool::CountTask() {
  if (progress_ != nullptr) progress_->fetch_add(1, std::memory_order_relaxed);
}

// No task of a higher index starts any more. Those of lower ones have all started and run to their
// end, so that the first failure is always the same.
void ThreadPool::NoteFailure(int64_t i) noexcept {
  const std::scoped_lock lock(failure_mutex_);
  if (!failure_ || i < failed_task_) {
    failure_ = std::current_exception();
    failed_task_ = i;
  }
  next_task_.store(num_tasks_, std::memory_order_relaxed);
}

std::jthread StartThread(const std::string& name, std::function<void()> body) {
  try {
    return std::jthread([name, body = std::move(body)] {
      NameThisThread(name);
      body();
    });
  } catch (const std::system_error& e) {
    Throw(ErrorKind::kResource,
          "cannot start the thread {}: {}; what limits threads: ulimit -u, the pids of a "
          "container, and memory for their stacks (ulimit -v)",
          name, e.code().message());
  }
}

void NameThisThread(const std::string& name) {
  ::pthread_setname_np(::pthread_self(), name.substr(0, 15).c_str());
}

int64_t ThreadCpuNs() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

}  // namespace wideload
