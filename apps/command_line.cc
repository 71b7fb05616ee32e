#include "command_line.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>

#include "base/error.h"
#include "base/log.h"
#include "interrupt.h"
#include "version.h"

namespace wideload::apps {

std::string Names(std::string_view dashed, std::string_view short_form) {
  std::string underscored(dashed);
  std::replace(underscored.begin(), underscored.end(), '-', '_');
  std::string names = short_form.empty() ? "" : "-" + std::string(short_form) + ",";
  names += "--" + std::string(dashed);
  if (underscored != dashed) names += ",--" + underscored;
  return names;
}

int ReportFailure(const std::exception& failure) {
  const auto* const error = dynamic_cast<const Error*>(&failure);
  std::fprintf(stderr, "%swideload: %s: %s\n", LogPrefix().c_str(),
               error != nullptr ? "error" : "internal error", failure.what());
  if (error == nullptr) return 1;
  const int interrupted = InterruptExitCode();
  return interrupted != 0 ? interrupted : ExitCode(error->kind());
}

int FinishOutput(int code) {
  if (code != 0 || (std::cout.flush() && std::fflush(stdout) == 0 && std::ferror(stdout) == 0))
    return code;
  std::fprintf(stderr, "wideload: error: standard output: cannot write: %s\n",
               std::strerror(errno));
  return 1;
}

void AddVersionOption(CLI::App& app) {
  app.set_version_flag("--version", std::string("wideload ") + kVersion);
}

}  // namespace wideload::apps
