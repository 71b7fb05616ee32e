// Arbitrary bytes as a statistics folder: two bytes length of meta_info.json, its text, then how
// many bytes each of two rank files has (two bytes for the first; the second takes the rest).
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "statistics/report.h"
#include "statistics/statistics_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload;  // NOLINT(google-build-using-namespace): a program of one file
  try {
    std::span<const uint8_t> rest(data, size);
    const auto take = [&]() {
      if (rest.size() < 2) return std::span<const uint8_t>();
      const size_t length = std::min<size_t>(rest[0] + 256U * rest[1], rest.size() - 2);
      const auto part = rest.subspan(2, length);
      rest = rest.subspan(2 + length);
      return part;
    };
    const auto meta = take();
    const auto first = take();
    std::vector<SafetensorsFile> files;
    files.emplace_back(std::as_bytes(first), "rank0");
    if (!rest.empty()) files.emplace_back(std::as_bytes(rest), "rank1");
    const std::string_view text(reinterpret_cast<const char*>(meta.data()), meta.size());
    const auto ranks = statistics::ParseStatistics(text, "meta", files, {.sum_ranks = false});
    const auto sums = statistics::ParseStatistics(text, "meta", files, {});
    WIDELOAD_CHECK(statistics::SumRanks(ranks) == sums, "{} iterations differ",
                   sums.num_iterations);
    statistics::FormatLoadReport(statistics::MakeLoadReport(sums, {.per_expert = true}));
  } catch (const Error&) {
    // A refusal is a right answer.
  }
  return 0;
}
