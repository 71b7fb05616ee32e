// Arbitrary bytes as a CSV load table; what is accepted is written and read back.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "statistics/load_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload;  // NOLINT(google-build-using-namespace): a program of one file
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const statistics::LoadTable table = statistics::ParseLoadCsv(text, "fuzz");
    WIDELOAD_CHECK(statistics::ParseLoadCsv(statistics::FormatLoadCsv(table), "written") == table,
                   "a table of {} layers changed", table.layers.size());
  } catch (const Error&) {
    // A refusal is a right answer.
  }
  return 0;
}
