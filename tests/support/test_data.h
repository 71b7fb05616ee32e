// Where tests find their files.
#pragma once

#include <string>
#include <vector>

namespace wideload::testing_support {

// The project's folder: WIDELOAD_SOURCE_DIR, which ctest sets, else the working folder.
std::string SourcePath(const std::string& relative);

// The folders testdata/models/tiny-*, one or more of every model family, sorted.
std::vector<std::string> TinyModels();

// The folder of shared data: WIDELOAD_SHARED, default ../shared beside the project; empty when it
// is not there.
std::string SharedPath(const std::string& relative);

}  // namespace wideload::testing_support
