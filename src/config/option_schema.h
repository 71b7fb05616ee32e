// A JSON schema of configuration files, made from the tables of options and of keys. Pure.
#pragma once

#include "base/json.h"

namespace wideload::config {

// Of draft 2020-12: every known key with its type, limits, and what it does here; no others.
Json OptionSchema();

}  // namespace wideload::config
