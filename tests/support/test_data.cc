#include "support/test_data.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/file.h"

namespace wideload::testing_support {

std::string SourcePath(const std::string& relative) {
  const char* root = std::getenv("WIDELOAD_SOURCE_DIR");
  return std::string(root ? root : ".") + "/" + relative;
}

std::vector<std::string> TinyModels() {
  std::vector<std::string> folders;
  for (const auto& entry : std::filesystem::directory_iterator(SourcePath("testdata/models")))
    if (entry.path().filename().string().starts_with("tiny-"))
      folders.push_back(entry.path().string());
  std::ranges::sort(folders);
  return folders;
}

std::string SharedPath(const std::string& relative) {
  const char* shared = std::getenv("WIDELOAD_SHARED");
  const std::string root = shared ? shared : SourcePath("../shared");
  return IsDirectory(root) ? root + "/" + relative : "";
}

}  // namespace wideload::testing_support
