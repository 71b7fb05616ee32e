#include "support/test_data.h"

#include <cstdlib>

#include "base/file.h"

namespace wideload::testing_support {

std::string SourcePath(const std::string& relative) {
  const char* root = std::getenv("WIDELOAD_SOURCE_DIR");
  return std::string(root ? root : ".") + "/" + relative;
}

std::string SharedPath(const std::string& relative) {
  const char* shared = std::getenv("WIDELOAD_SHARED");
  const std::string root = shared ? shared : SourcePath("../shared");
  return IsDirectory(root) ? root + "/" + relative : "";
}

}  // namespace wideload::testing_support
