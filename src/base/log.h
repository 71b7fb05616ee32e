// Logging to stderr, the one global. Levels: trace, debug, info, warn, error. Thread-safe.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

namespace wideload {

enum class LogLevel { kTrace, kDebug, kInfo, kWarn, kError };

// Sets the lowest level that is printed (default: info). Errors: kInvalid for an unknown name, with
// the allowed ones.
void SetLogLevel(std::string_view name);
// Put before every line, and by callers before what they print beside the log ("[rank 3] ";
// default: nothing). Before other threads log.
void SetLogPrefix(const std::string& prefix);
// What SetLogPrefix was given last.
const std::string& LogPrefix();
// Whether lines of this level are printed.
bool LogEnabled(LogLevel level);
// Prints the line, if this level is printed.
void LogLine(LogLevel level, const std::string& line);

// Formats and prints, if the level is printed; nothing is formatted otherwise.
template <class... Args>
void Log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
  if (LogEnabled(level)) LogLine(level, fmt::format(format, std::forward<Args>(args)...));
}

// What the user may want to know.
template <class... Args>
void LogInfo(fmt::format_string<Args...> format, Args&&... args) {
  Log(LogLevel::kInfo, format, std::forward<Args>(args)...);
}

// What may be wrong.
template <class... Args>
void LogWarn(fmt::format_string<Args...> format, Args&&... args) {
  Log(LogLevel::kWarn, format, std::forward<Args>(args)...);
}

// True when a person watches stderr: progress bars and colours are allowed (NO_COLOR is honoured by
// callers).
bool StderrIsTerminal();

}  // namespace wideload
