// docs/configuration.md, made from the table of options. Pure.
#pragma once

#include <string>

namespace wideload::config {

// The whole page, in Markdown: what all options have in common, then a table for each group.
std::string OptionPage();

}  // namespace wideload::config
