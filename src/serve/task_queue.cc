#include "serve/task_queue.h"

#include <fmt/format.h>

#include "base/thread_pool.h"

namespace wideload::serve {

TaskQueue::TaskQueue(const std::string& name, int num_threads, size_t max_waiting)
    : max_waiting_(max_waiting) {
  for (int i = 0; i < num_threads; ++i)
    threads_.push_back(StartThread(fmt::format("{} {}", name, i), [this] { Work(); }));
}

void TaskQueue::Stop() {
  {
    const std::lock_guard lock(mutex_);
    is_ending_ = true;
    waiting_.clear();
  }
  changed_.notify_all();
  threads_.clear();
}

bool TaskQueue::TryPut(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    if (is_ending_ || waiting_.size() >= max_waiting_) return false;
    waiting_.push_back(std::move(task));
  }
  changed_.notify_one();
  return true;
}

void TaskQueue::Work() {
  while (true) {
    std::function<void()> task;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return is_ending_ || !waiting_.empty(); });
      if (is_ending_) return;
      task = std::move(waiting_.front());
      waiting_.pop_front();
    }
    task();
  }
}

}  // namespace wideload::serve
