// SIGINT and SIGTERM as a question that loops ask: the first ends the run cleanly, the second at
// once.
#pragma once

namespace wideload::apps {

// Installs the handlers; call once before the work.
void CatchInterrupts();
// The signal that arrived, or 0.
int InterruptSignal();
// 128 + signal, as shells expect, or 0 when there was none.
int InterruptExitCode();

}  // namespace wideload::apps
