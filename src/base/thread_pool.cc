#include "base/thread_pool.h"

#include <pthread.h>

#include <algorithm>

#include "base/error.h"

namespace wideload {
namespace {

constexpr auto kForever = [] { return true; };

}  // namespace

ThreadPool::ThreadPool(const std::string& name, int num_threads, int total_threads)
    : ladder_(WaitLadder::For(std::max(num_threads, total_threads))) {
  WIDELOAD_CHECK(num_threads >= 1, "a pool of {} threads", num_threads);
  for (int i = 1; i < num_threads; ++i) {
    threads_.emplace_back([this, i, thread_name = fmt::format("{}/{}", name, i)] {
      NameThisThread(thread_name);
      ThreadMain(i);
    });
  }
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_release);
  round_.Increment();
}

void ThreadPool::Run(int64_t num_tasks, FunctionRef<void(int64_t, int)> task) {
  if (threads_.empty() || num_tasks <= 1) {
    for (int64_t i = 0; i < num_tasks; ++i) Do(task, i, 0);
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
  task(i, thread);
  if (progress_ != nullptr) progress_->fetch_add(1, std::memory_order_relaxed);
}

void NameThisThread(const std::string& name) {
  ::pthread_setname_np(::pthread_self(), name.substr(0, 15).c_str());
}

}  // namespace wideload
