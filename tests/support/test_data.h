// Where tests find their files.
#pragma once

#include <string>

namespace wideload::testing_support {

// The project's folder: WIDELOAD_SOURCE_DIR, which ctest sets, else the working folder.
std::string SourcePath(const std::string& relative);

// The folder of shared data: WIDELOAD_SHARED, default ../shared beside the project; empty when it
// is not there.
std::string SharedPath(const std::string& relative);

}  // namespace wideload::testing_support
