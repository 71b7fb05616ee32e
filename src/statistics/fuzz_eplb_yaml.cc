// Arbitrary bytes as an EPLB YAML file; what is accepted is written and read back.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "statistics/eplb_yaml.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload;  // NOLINT(google-build-using-namespace): a program of one file
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const statistics::EplbConfig config = statistics::ParseEplbYaml(text, "fuzz");
    statistics::EplbConfig written = config;
    written.ep_size.reset();  // is never written
    WIDELOAD_CHECK(
        statistics::ParseEplbYaml(statistics::FormatEplbYaml(config), "written") == written,
        "a file of {} layers changed", config.layers.size());
  } catch (const Error&) {
    // A refusal is a right answer.
  }
  return 0;
}
