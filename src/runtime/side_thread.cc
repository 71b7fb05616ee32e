#include "runtime/side_thread.h"

#include <utility>

#include "base/thread_pool.h"

namespace wideload::runtime {

SideThread::SideThread(const std::string& name) {
  thread_ = StartThread(name, [this] { Run(); });
}

SideThread::~SideThread() {
  is_ending_ = true;
  begun_.Increment();
  thread_.join();
}

void SideThread::Begin(const std::function<void()>& work) {
  work_ = &work;
  ++num_begun_;
  begun_.Increment();
}

// It has long ended, as a rule.
void SideThread::Await() {
  WaitFor(
      ended_, WaitLadder::Oversubscribed(), [&](uint32_t ended) { return ended == num_begun_; },
      [] { return true; });
}

void SideThread::Finish() {
  Await();
  thrown_ = nullptr;
}

void SideThread::Join() {
  Await();
  if (std::exception_ptr thrown = std::exchange(thrown_, nullptr)) std::rethrow_exception(thrown);
}

void SideThread::Run() {
  for (uint32_t seen = 0;; ++seen) {
    WaitFor(
        begun_, {.spins = 0, .yields = 0}, [&](uint32_t begun) { return begun != seen; },
        [] { return true; });
    if (is_ending_) return;
    try {
      (*work_)();
    } catch (...) {
      thrown_ = std::current_exception();
    }
    ended_.Increment();
  }
}

}  // namespace wideload::runtime
