// Keeps an engine's process running behind a front: starts it, looks whether it answers, starts it
// again when it has failed, and ends it.
#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/child_process.h"
#include "serve/front.h"

namespace wideload::apps {

// The restarts that are allowed: so many within a time. Pure.
class RestartBudget {
 public:
  using Clock = std::chrono::steady_clock;
  RestartBudget(int32_t max_restarts, Clock::duration window)
      : max_restarts_(max_restarts), window_(window) {}

  // False when `now` there may be none; else counts one.
  bool Take(Clock::time_point now);
  // Those that count now.
  int32_t used() const { return static_cast<int32_t>(taken_.size()); }

 private:
  int32_t max_restarts_;
  Clock::duration window_;
  std::deque<Clock::time_point> taken_;
};

// What the engine's process is.
struct EngineProcess {
  std::vector<std::string> argv;  // without the socket on which it answers once it has loaded
  int32_t max_restarts = 5;       // within kRestartWindow
};

inline constexpr std::chrono::minutes kRestartWindow{10};

// Of the thread that makes it, which must be there until the end.
class EngineKeeper {
 public:
  // `front` must outlive it.
  EngineKeeper(serve::Front& front, EngineProcess process);
  ~EngineKeeper();

  // Starts the process and waits until it answers. False when it has ended as it was asked to: a
  // signal has come meanwhile. Errors: kRunFailed when a signal has ended it; EndSilently when it
  // has told itself why it ends.
  bool Start();
  // To be called some ten times a second: starts the process again when it has failed, and tells
  // the front. False once it has ended as it was asked to. Errors: kRunFailed with how it has ended
  // when it may not be started again.
  bool Look();
  // Asks it to end, and ends it by force when that takes longer.
  void End(std::chrono::milliseconds longest);

 private:
  bool HasEndedWell() const { return child_ == nullptr; }
  void StartProcess();
  void Restart(int status);

  serve::Front& front_;
  EngineProcess process_;
  RestartBudget budget_;
  serve::LocalSocket socket_;               // of the process
  std::unique_ptr<ChildProcess> child_;     // null: it has ended as it was asked to
  RestartBudget::Clock::time_point ended_;  // the last time
};

}  // namespace wideload::apps
