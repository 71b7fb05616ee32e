// Any bytes as a config.json of any family, and as a JSON merge patch of a published one, which the
// size chooses: read, or refused with at least one reason.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "model/registry.h"

namespace {

using namespace wideload;  // NOLINT(google-build-using-namespace): a program of one file

std::vector<Json> TinyConfigs() {
  const char* folder = std::getenv("WIDELOAD_SOURCE_DIR");
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(
           std::string(folder != nullptr ? folder : ".") + "/testdata/models"))
    paths.push_back(entry.path().string() + "/config.json");
  std::ranges::sort(paths);
  std::vector<Json> configs;
  for (const std::string& path : paths)
    if (FileExists(path)) configs.push_back(ReadJsonFile(path));
  WIDELOAD_CHECK(!configs.empty(), "no models in testdata");
  return configs;
}

void Use(std::string_view text) {
  try {
    std::vector<std::string> faults;
    const model::ModelReading reading = model::ParseModel(text, "config.json", faults);
    if (faults.empty() && reading.unsupported.empty()) {
      WIDELOAD_CHECK(reading.spec.num_layers() == reading.config.num_layers, "{} layers",
                     reading.spec.num_layers());
      model::KvBytesPerToken(reading.spec, DType::kBF16);
    }
  } catch (const Error&) {
    // A refusal is a right answer.
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<Json> configs = TinyConfigs();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Use(text);
  try {
    Json patched = configs[size % configs.size()];
    patched.merge_patch(ParseJson(text, "fuzz"));
    Use(DumpJson(patched));
  } catch (const Error&) {
    // a refusal is an answer
  }
  return 0;
}
