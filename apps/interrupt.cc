#include "interrupt.h"

#include <unistd.h>

#include <csignal>

namespace wideload::apps {
namespace {

volatile std::sig_atomic_t g_signal = 0;

void OnSignal(int signal) {
  if (g_signal != 0) ::_exit(128 + signal);
  g_signal = signal;
}

}  // namespace

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

int InterruptExitCode() { return g_signal == 0 ? 0 : 128 + g_signal; }

}  // namespace wideload::apps
