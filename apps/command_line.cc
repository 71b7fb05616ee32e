#include "command_line.h"

#include <algorithm>

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

void AddVersionOption(CLI::App& app) {
  app.set_version_flag("--version", std::string("wideload ") + kVersion);
}

}  // namespace wideload::apps
