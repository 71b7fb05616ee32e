// Arbitrary bytes as what another rank writes for a round: its counts, and a region's header and
// metas. What has no fault keeps to the memory of the round.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "exchange/round_check.h"

namespace {

using namespace wideload::exchange;  // NOLINT(google-build-using-namespace): a program of one file

constexpr ExchangeShape kShape{.num_ranks = 4,
                               .max_rows = 6,
                               .top_k = 3,
                               .row_bytes = 8,
                               .return_row_bytes = 8,
                               .num_experts = 10,
                               .num_slots = 12};

// As many values as there are bytes for, the rest 0.
std::vector<int32_t> Values(const uint8_t* data, size_t size, size_t count) {
  std::vector<int32_t> values(count);
  const size_t num_bytes = std::min(size, count * sizeof(int32_t));
  if (num_bytes > 0) std::memcpy(values.data(), data, num_bytes);
  return values;
}

void UseRegion(const DispatchHeader& header, const uint8_t* data, size_t size) {
  if (!FaultOfHeader(kShape, header).empty()) return;
  const auto row_values = static_cast<size_t>(1 + kShape.top_k);
  const std::vector<int32_t> metas =
      Values(data, size, static_cast<size_t>(header.num_rows) * row_values);
  std::vector<int64_t> rows(static_cast<size_t>(kShape.slots_per_rank()));
  if (!CountRows(kShape, header, metas.data(), rows).empty()) return;
  int64_t num_pairs = 0;
  for (const int64_t count : rows) num_pairs += count;
  WIDELOAD_CHECK(num_pairs == header.num_pairs, "{} rows of slots", num_pairs);
  WIDELOAD_CHECK(header.comb_offset + num_pairs <= kShape.max_rows * kShape.top_k, "results to {}",
                 header.comb_offset + num_pairs);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::vector<int32_t> counts = Values(data, size, static_cast<size_t>(kShape.num_experts));
  if (FaultOfCounts(kShape, counts).empty())
    for (const int32_t count : counts)
      WIDELOAD_CHECK(count >= 0 && count <= kShape.max_rows * kShape.top_k, "{} entries", count);
  // Small numbers are likely, so that whole regions come about.
  DispatchHeader header;
  if (size < 3) return 0;
  header.num_rows = data[0] % 16 - 4;
  header.num_pairs = data[1] % 32 - 4;
  header.comb_offset = data[2] % 32 - 4;
  UseRegion(header, data + 3, size - 3);
  std::vector<uint8_t> small(data + 3, data + size);
  for (size_t i = 0; i < small.size(); ++i)
    small[i] = i % 4 == 0 ? small[i] % 8 : (small[i] & 0x80) != 0 ? 0xff : 0;
  UseRegion(header, small.data(), small.size());
  if (size < sizeof(header)) return 0;
  std::memcpy(&header, data, sizeof(header));
  UseRegion(header, data + sizeof(header), size - sizeof(header));
  return 0;
}
