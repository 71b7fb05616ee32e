// A thread beside that of its owner, which has one piece of work done there while it goes on with
// another. Used by one thread.
#pragma once

#include <exception>
#include <functional>
#include <string>
#include <thread>

#include "base/wait.h"

namespace wideload::runtime {

class SideThread {
 public:
  // Starts the thread, which rests until there is work. Errors: kResource.
  explicit SideThread(const std::string& name);
  ~SideThread();
  SideThread(const SideThread&) = delete;
  SideThread& operator=(const SideThread&) = delete;

  // Has `work` called there; it must outlive Join, and nothing else is under way.
  void Begin(const std::function<void()>& work);
  // Waits until it has returned. Rethrows what it threw. Without effect when nothing is under way.
  void Join();
  // The same without a rethrow.
  void Finish();

 private:
  void Run();
  void Await();

  const std::function<void()>* work_ = nullptr;
  std::exception_ptr thrown_;
  uint32_t num_begun_ = 0;
  bool is_ending_ = false;
  EventWord begun_;
  EventWord ended_;
  std::jthread thread_;
};

}  // namespace wideload::runtime
