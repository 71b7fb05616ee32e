// Arbitrary bytes as SGLang's JSON of counts and placements.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "statistics/load_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload;  // NOLINT(google-build-using-namespace): a program of one file
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const statistics::SglangFile file = statistics::ParseSglangJson(text, "fuzz");
    if (file.loads) {
      const auto again =
          statistics::ParseSglangJson(statistics::FormatSglangCounts(*file.loads), "");
      WIDELOAD_CHECK(again.loads == file.loads, "counts of {} layers changed",
                     file.loads->layers.size());
    }
  } catch (const Error&) {
    // A refusal is a right answer.
  }
  return 0;
}
