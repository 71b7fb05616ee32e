// Arbitrary bytes as a configuration file; what is accepted can be told of and applied.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "config/config_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload;  // NOLINT(google-build-using-namespace): a program of one file
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const config::ConfigFile file = config::ParseConfigFile(text, "fuzz");
    config::Notes(file);
    config::EngineFlags engine;
    config::SamplingFlags sampling;
    config::ApplyConfigFile(file, engine);
    config::ApplyConfigFile(file, sampling);
  } catch (const Error&) {
    // A refusal is a right answer.
  }
  return 0;
}
