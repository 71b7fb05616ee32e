// SIGINT and SIGTERM as a question that loops ask: the first ends the run cleanly, the second at
// once.
#pragma once

namespace wideload::apps {

// Installs the handlers; call once before the work.
void CatchInterrupts();
// The signal that arrived, or 0.
int InterruptSignal();
// As if this signal had arrived here, unless one has: another rank of the run was told to end.
void NoteInterrupt(int signal);
// 128 + signal, as shells expect, or 0 when there was none.
int InterruptExitCode();

}  // namespace wideload::apps
