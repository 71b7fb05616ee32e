// A few threads that do what is put into a bounded queue, in order of arrival. Thread-safe.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace wideload::serve {

class TaskQueue {
 public:
  // Starts threads of that name; no more than max_waiting tasks wait.
  TaskQueue(const std::string& name, int num_threads, size_t max_waiting);
  ~TaskQueue() { Stop(); }
  TaskQueue(const TaskQueue&) = delete;
  TaskQueue& operator=(const TaskQueue&) = delete;

  // False when the queue is full or stopped. Tasks must not throw.
  bool TryPut(std::function<void()> task);
  // Drops what waits, and waits for what runs.
  void Stop();

 private:
  void Work();

  const size_t max_waiting_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> waiting_;
  bool is_ending_ = false;
  std::vector<std::jthread> threads_;
};

}  // namespace wideload::serve
