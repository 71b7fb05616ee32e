#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <memory>

#include "base/error.h"

namespace wideload {
namespace {

constexpr const char* kPattern = "[%H:%M:%S.%e] [%^%l%$] %v";
constexpr std::array<std::string_view, 5> kNames = {"trace", "debug", "info", "warn", "error"};

spdlog::logger& Logger() {
  static const std::shared_ptr<spdlog::logger> logger = [] {
    const auto mode =
        std::getenv("NO_COLOR") ? spdlog::color_mode::never : spdlog::color_mode::automatic;
    auto made = std::make_shared<spdlog::logger>(
        "wideload", std::make_shared<spdlog::sinks::stderr_color_sink_mt>(mode));
    made->set_pattern(kPattern);
    made->set_level(spdlog::level::info);
    return made;
  }();
  return *logger;
}

spdlog::level::level_enum SpdlogLevel(LogLevel level) {
  return static_cast<spdlog::level::level_enum>(static_cast<int>(level));
}

}  // namespace

void SetLogLevel(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i)
    if (kNames[i] == name) return Logger().set_level(SpdlogLevel(static_cast<LogLevel>(i)));
  Throw(ErrorKind::kInvalid, "log level is {}; allowed: {}", name, fmt::join(kNames, ", "));
}

namespace {
std::string& Prefix() {
  static std::string prefix;
  return prefix;
}
}  // namespace

void SetLogPrefix(const std::string& prefix) {
  Prefix() = prefix;
  Logger().set_pattern(prefix + kPattern);
}

const std::string& LogPrefix() { return Prefix(); }

bool LogEnabled(LogLevel level) { return Logger().should_log(SpdlogLevel(level)); }

void LogLine(LogLevel level, const std::string& line) { Logger().log(SpdlogLevel(level), line); }

bool StderrIsTerminal() { return ::isatty(STDERR_FILENO) == 1; }

}  // namespace wideload
