// For this module's tests: folders that vanish, files with chosen content, and what an error said.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/file.h"

namespace wideload::checkpoint {

// A fresh folder, removed with all it holds at the end of the test.
class TestFolder {
 public:
  TestFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "wideload.XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) Throw(ErrorKind::kIo, "cannot make {}", name);
    path_ = name;
  }
  ~TestFolder() { std::filesystem::remove_all(path_); }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  const std::string& path() const { return path_; }
  // Makes a file, or replaces it.
  void Write(const std::string& name, std::string_view content) const {
    WriteFileWhole(path_ + "/" + name, content);
  }

 private:
  std::string path_;
};

// The message of the Error that `action` throws; "accepted" when it throws none.
template <class Action>
std::string Refusal(Action&& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

// The repository's root.
inline std::string SourceDir() {
  const char* folder = std::getenv("WIDELOAD_SOURCE_DIR");
  return folder != nullptr ? folder : ".";
}

// A folder of a model with small random weights.
inline std::string TinyQwen3Moe() { return SourceDir() + "/testdata/models/tiny-qwen3-moe"; }

// Checkpoints of other families, outside the repository; may be missing.
inline std::string SharedModels() {
  const char* folder = std::getenv("WIDELOAD_SHARED");
  return (folder != nullptr ? std::string(folder) : SourceDir() + "/../shared") + "/models";
}

}  // namespace wideload::checkpoint
