// A limit of time for tests of code that, broken, would not come to its end.
#pragma once

#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include <string_view>

namespace wideload {

// While it lives, the test program may take so much CPU time, and ten times as long on the wall,
// which is for code that waits. Then it ends, and has failed. One at a time.
class TimeLimit {
 public:
  explicit TimeLimit(int cpu_seconds = kSeconds) {
    struct sigaction action {};
    action.sa_handler = OnEnd;
    ::sigaction(SIGPROF, &action, &before_cpu_);
    ::sigaction(SIGALRM, &action, &before_wall_);
    Set(ITIMER_PROF, cpu_seconds);
    Set(ITIMER_REAL, 10 * cpu_seconds);
  }
  ~TimeLimit() {
    Set(ITIMER_PROF, 0);
    Set(ITIMER_REAL, 0);
    ::sigaction(SIGPROF, &before_cpu_, nullptr);
    ::sigaction(SIGALRM, &before_wall_, nullptr);
  }
  TimeLimit(const TimeLimit&) = delete;
  TimeLimit& operator=(const TimeLimit&) = delete;

 private:
  // What takes a second or two, and some times that with sanitizers, when it is right.
  static constexpr int kSeconds = 30;

  static void Set(__itimer_which_t timer, int seconds) {
    const itimerval value{.it_interval = {}, .it_value = {.tv_sec = seconds, .tv_usec = 0}};
    ::setitimer(timer, &value, nullptr);
  }
  static void OnEnd(int) {
    constexpr std::string_view kText = "the test takes longer than its TimeLimit\n";
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, kText.data(), kText.size());
    ::_exit(1);
  }

  struct sigaction before_cpu_ {};
  struct sigaction before_wall_ {};
};

}  // namespace wideload
