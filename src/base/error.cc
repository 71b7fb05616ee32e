#include "base/error.h"

#include <cstdio>
#include <cstdlib>

namespace wideload {

int ExitCode(ErrorKind kind) {
  return kind == ErrorKind::kRunFailed || kind == ErrorKind::kIo ? 1 : 2;
}

void Fatal(const char* file, int line, const std::string& message) {
  std::fprintf(stderr, "wideload: fatal: %s (%s:%d)\n", message.c_str(), file, line);
  std::fflush(stderr);
  std::abort();
}

}  // namespace wideload
