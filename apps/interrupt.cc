#include "interrupt.h"

#include <unistd.h>

#include <csignal>

#include "base/temporary.h"

namespace wideload::apps {
namespace {

volatile std::sig_atomic_t g_signal = 0;

void OnSignal(int signal) {
  if (g_signal != 0) {
    RemoveTemporaries();
    ::_exit(128 + signal);
  }
  g_signal = signal;
}

// The system's own action follows.
void OnEnd(int signal) {
  RemoveTemporaries();
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

}  // namespace

void CleanUpOnSignals() {
  struct sigaction action {};
  action.sa_handler = OnEnd;
  for (const int signal : {SIGHUP, SIGINT, SIGQUIT, SIGABRT, SIGPIPE, SIGTERM, SIGXCPU, SIGXFSZ}) {
    struct sigaction before {};
    // What nohup or a shell has switched off stays off.
    if (::sigaction(signal, nullptr, &before) == 0 && before.sa_handler == SIG_DFL)
      ::sigaction(signal, &action, nullptr);
  }
}

void CatchInterrupts() {
  struct sigaction action {};
  action.sa_handler = OnSignal;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

int InterruptSignal() { return g_signal; }

void NoteInterrupt(int signal) {
  if (g_signal == 0) g_signal = signal;
}

void ForgetInterrupt() { g_signal = 0; }

int InterruptExitCode() { return g_signal == 0 ? 0 : 128 + g_signal; }

}  // namespace wideload::apps
