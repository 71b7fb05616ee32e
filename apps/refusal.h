// How a command line that cannot be read ends the program. Main thread only.
#pragma once

#include <string>

namespace wideload::apps {

// Prints "wideload: error: `message`" and returns the exit code of a refusal. When mpirun or srun
// started this process as one of several, all end with that code and rank 0 alone prints: what it
// was given itself or, if that can be read, what the first other rank could not.
int RefuseCommandLine(const std::string& message);

}  // namespace wideload::apps
