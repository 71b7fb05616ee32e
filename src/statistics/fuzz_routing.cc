// Arbitrary bytes as a safetensors file of token-level routing.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "statistics/load_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload;  // NOLINT(google-build-using-namespace): a program of one file
  try {
    const SafetensorsFile file(std::as_bytes(std::span(data, size)), "fuzz");
    const eplb::RoutingTrace routing = statistics::RoutingOfFile(file);
    statistics::RoutingLoads(routing);
  } catch (const Error&) {
    // A refusal is a right answer.
  }
  return 0;
}
