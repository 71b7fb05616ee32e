#include "comm/mpi/pulse.h"

#include "base/thread_pool.h"

namespace wideload::comm {

Pulse::Pulse(std::chrono::milliseconds pace, std::function<void()> beat)
    : thread_(StartThread("pulse", [this, pace, beat = std::move(beat)] {
        std::unique_lock lock(mutex_);
        while (!stopped_.wait_for(lock, pace, [this] { return stop_; })) {
          lock.unlock();
          beat();
          lock.lock();
        }
      })) {}

Pulse::~Pulse() {
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  stopped_.notify_all();
}

}  // namespace wideload::comm
