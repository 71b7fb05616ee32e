// Errors and checks. An Error ends a start or a tool's run; a failed WIDELOAD_CHECK ends the
// process. Everything else, a refused request included, is a value.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace wideload {

// What went wrong, as far as a caller acts on it.
enum class ErrorKind {
  kInvalid,      // a flag, field or argument with a value that is not allowed
  kNotFound,     // a file, tensor or name that is not there
  kCorrupt,      // a file whose bytes contradict its format
  kUnsupported,  // well-formed, but not implemented here
  kResource,     // not enough memory, slots, space
  kIo,           // the operating system refused a read or write
  kRunFailed,    // the run started and could not finish
};

// The one exception type. The message names what was found, what is allowed, and the flag, field or
// file.
class Error : public std::runtime_error {
 public:
  // See Throw, which formats the message.
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

// Throws Error(kind, formatted message).
template <class... Args>
[[noreturn]] void Throw(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

// Exit code of a program that ends with this error: 2 refused before work, 1 the run failed.
int ExitCode(ErrorKind kind);

// Prints the message with its place to stderr and aborts the process.
[[noreturn]] void Fatal(const char* file, int line, const std::string& message);

}  // namespace wideload

// Ends the process when a broken invariant is found; always on. Usage: WIDELOAD_CHECK(n > 0, "n is
// {}", n).
#define WIDELOAD_CHECK(condition, ...)                                                \
  do {                                                                                \
    if (!(condition)) [[unlikely]]                                                    \
      ::wideload::Fatal(__FILE__, __LINE__,                                           \
                        "check failed: " #condition ": " + fmt::format(__VA_ARGS__)); \
  } while (false)
