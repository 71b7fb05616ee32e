// Arbitrary bytes as a configuration file, of one engine or of prefill and decode apart; what is
// accepted can be told of and applied.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "config/disaggregated_file.h"

namespace {

void Apply(const wideload::config::ConfigFile& file) {
  wideload::config::Notes(file);
  wideload::config::EngineFlags engine;
  wideload::config::SamplingFlags sampling;
  wideload::config::ApplyConfigFile(file, engine);
  wideload::config::ApplyConfigFile(file, sampling);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload;  // NOLINT(google-build-using-namespace): a program of one file
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    Apply(config::ParseConfigFile(text, "fuzz"));
  } catch (const Error&) {
    // A refusal is a right answer.
  }
  try {
    const config::DisaggregatedFile file = config::ParseDisaggregatedFile(text, "fuzz");
    Apply(file.context.engine);
    Apply(file.generation.engine);
  } catch (const Error&) {
    // A refusal is a right answer.
  }
  return 0;
}
