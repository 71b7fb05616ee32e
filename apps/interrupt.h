// Signals: no partial file stays when one ends the program; SIGINT and SIGTERM as a question that
// loops ask, the first of which ends the run cleanly, the second at once.
#pragma once

namespace wideload::apps {

// A signal that ends the program then removes the files it has on their way first. Call once, at
// the start.
void CleanUpOnSignals();
// Installs the handlers of the question; call once before the work.
void CatchInterrupts();
// The signal that arrived, or 0.
int InterruptSignal();
// As if this signal had arrived here, unless one has: another rank of the run was told to end.
void NoteInterrupt(int signal);
// As if none had arrived: what it asked for is done, and the end is a success.
void ForgetInterrupt();
// 128 + signal, as shells expect, or 0 when there was none.
int InterruptExitCode();

}  // namespace wideload::apps
