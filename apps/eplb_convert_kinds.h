// What kinds of files `wideload eplb convert` reads and writes. Thread-safe.
#pragma once

#include <string>

namespace wideload::apps {

// kEngineFile: loads or a placement, which only its content tells.
enum class Input { kFolder, kRouting, kYaml, kEngineFile };
enum class Output { kFolder, kYaml, kCsv, kJson, kJsonl, kTensor, kNpy };

// By what is there. Errors: kNotFound; kInvalid naming the kinds there are.
Input InputOf(const std::string& path);
// By the ending of the name. Errors: kInvalid naming the kinds there are.
Output OutputOf(const std::string& path);

}  // namespace wideload::apps
