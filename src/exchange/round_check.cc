#include "exchange/round_check.h"

#include <fmt/format.h>

#include "base/error.h"

namespace wideload::exchange {
namespace {

int64_t MaxEntries(const ExchangeShape& shape) { return shape.max_rows * shape.top_k; }

}  // namespace

void RequireNone(const std::string& fault, int source, int64_t round) {
  WIDELOAD_CHECK(fault.empty(), "round {}, rank {}: {}", round, source, fault);
}

std::string FaultOfCounts(const ExchangeShape& shape, std::span<const int32_t> counts) {
  int64_t sum = 0;
  bool is_negative = false;
  for (const int32_t count : counts) {
    sum += count;
    is_negative = is_negative || count < 0;
  }
  if (!is_negative && sum <= MaxEntries(shape)) return "";
  return fmt::format("it counts {} entries{}; a chunk has at most {}", sum,
                     is_negative ? ", some experts less than none" : "", MaxEntries(shape));
}

std::string FaultOfHeader(const ExchangeShape& shape, const DispatchHeader& header) {
  const bool is_right = header.num_rows >= 0 && header.num_rows <= shape.max_rows &&
                        header.num_pairs >= 0 && header.comb_offset >= 0 &&
                        int64_t{header.comb_offset} + header.num_pairs <= MaxEntries(shape);
  if (is_right) return "";
  return fmt::format("it announces {} rows, {} results from {} on", header.num_rows,
                     header.num_pairs, header.comb_offset);
}

std::string CountRows(const ExchangeShape& shape, const DispatchHeader& header,
                      const int32_t* metas, std::span<int64_t> rows_of_slot) {
  const int num_slots = shape.slots_per_rank();
  int64_t num_pairs = 0;
  for (int64_t row = 0; row < header.num_rows; ++row) {
    const int32_t token = *metas++;
    if (token < 0 || token >= shape.max_rows)
      return fmt::format("it sends a row of token {} of {}", token, shape.max_rows);
    for (int k = 0; k < shape.top_k; ++k) {
      const int32_t slot = *metas++;
      if (slot < 0) continue;
      if (slot >= num_slots)
        return fmt::format("it sends a row for slot {} of {}", slot, num_slots);
      ++rows_of_slot[static_cast<size_t>(slot)];
      ++num_pairs;
    }
  }
  if (num_pairs == header.num_pairs) return "";
  return fmt::format("it announces {} results, its rows name {}", header.num_pairs, num_pairs);
}

}  // namespace wideload::exchange
