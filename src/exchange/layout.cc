#include "exchange/layout.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace wideload::exchange {
namespace {

constexpr int64_t kAbortStride = 512;
constexpr int64_t kMaxSegmentBytes = int64_t{1} << 46;

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

void CheckField(bool is_valid, const char* field, int64_t value, const char* allowed) {
  if (!is_valid)
    Throw(ErrorKind::kInvalid, "exchange: {} is {}; allowed: {}", field, value, allowed);
}

uint64_t Mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9E3779B97F4A7C15ULL;
  return hash ^ (hash >> 29);
}

}  // namespace

void ValidateShape(const ExchangeShape& shape) {
  constexpr int64_t kMaxRowBytes = int64_t{1} << 30;
  CheckField(shape.num_ranks >= 1 && shape.num_ranks <= 4096, "num_ranks", shape.num_ranks,
             "1 to 4096");
  CheckField(shape.top_k >= 1 && shape.top_k <= 1024, "top_k", shape.top_k, "1 to 1024");
  CheckField(
      shape.max_rows >= 1 && shape.max_rows <= std::numeric_limits<int32_t>::max() / shape.top_k,
      "max_rows", shape.max_rows, "1 to 2^31 / top_k");
  CheckField(shape.row_bytes >= 1 && shape.row_bytes <= kMaxRowBytes, "row_bytes", shape.row_bytes,
             "1 to 2^30");
  CheckField(shape.return_row_bytes >= 1 && shape.return_row_bytes <= kMaxRowBytes,
             "return_row_bytes", shape.return_row_bytes, "1 to 2^30");
  CheckField(shape.num_experts >= 1, "num_experts", shape.num_experts, "at least 1");
  CheckField(shape.num_slots >= shape.num_ranks && shape.num_slots % shape.num_ranks == 0,
             "num_slots", shape.num_slots, "a multiple of num_ranks");
  CheckField(shape.num_buffers >= 1 && shape.num_buffers <= 64, "num_buffers", shape.num_buffers,
             "1 to 64");
  const int64_t bytes = SegmentBytes(shape);
  if (bytes > kMaxSegmentBytes)
    Throw(ErrorKind::kResource, "exchange: a rank's segment would need {} bytes", bytes);
}

uint64_t Fingerprint(const ExchangeShape& shape) {
  uint64_t hash = kLayoutVersion;
  for (const int64_t value :
       {static_cast<int64_t>(shape.num_ranks), shape.max_rows, static_cast<int64_t>(shape.top_k),
        shape.row_bytes, shape.return_row_bytes, static_cast<int64_t>(shape.num_experts),
        static_cast<int64_t>(shape.num_slots), static_cast<int64_t>(shape.num_buffers),
        static_cast<int64_t>(shape.first_epoch), static_cast<int64_t>(shape.is_free)})
    hash = Mix(hash, static_cast<uint64_t>(value));
  return hash;
}

ExchangeLayout::ExchangeLayout(const ExchangeShape& shape)
    : num_ranks_(shape.num_ranks),
      num_buffers_(shape.num_buffers),
      num_experts_(shape.num_experts),
      top_k_(shape.top_k),
      max_rows_(shape.max_rows),
      row_stride_(RoundUp(shape.row_bytes, kLine)),
      return_stride_(RoundUp(shape.return_row_bytes, kLine)),
      counts_stride_(RoundUp(kCellBytes + counts_payload_bytes(), kLine)),
      region_bytes_(kLine + MetaBytes(max_rows_) + max_rows_ * row_stride_),
      abort_begin_(kPage),
      counts_begin_(abort_begin_ + num_ranks_ * kAbortStride + kLine),
      regions_begin_(
          RoundUp(counts_begin_ + (num_buffers_ + 1) * num_ranks_ * counts_stride_, kPage)),
      return_lines_begin_(regions_begin_ + num_buffers_ * num_ranks_ * region_bytes_),
      return_rows_begin_(return_lines_begin_ + num_buffers_ * num_ranks_ * kLine),
      segment_bytes_(
          RoundUp(return_rows_begin_ + num_buffers_ * max_rows_ * top_k_ * return_stride_, kPage)) {
  static_assert(sizeof(DispatchHeader) + kCellBytes <= kLine);
  static_assert(kAbortTextBytes + kCellBytes == kAbortStride);
  static_assert(sizeof(SegmentHeader) <= kPage);
}

int64_t ExchangeLayout::MetaBytes(int64_t num_rows) const {
  return RoundUp(num_rows * meta_values() * 4, kLine);
}

int64_t ExchangeLayout::AbortCell(int source) const { return abort_begin_ + source * kAbortStride; }

int64_t ExchangeLayout::CountsCell(int64_t round, int source) const {
  return counts_begin_ + (round % (num_buffers_ + 1) * num_ranks_ + source) * counts_stride_;
}

int64_t ExchangeLayout::RegionCell(int64_t round, int source) const {
  return regions_begin_ + (round % num_buffers_ * num_ranks_ + source) * region_bytes_;
}

int64_t ExchangeLayout::RegionRow(int64_t round, int source, int64_t num_rows, int64_t row) const {
  return RegionMetas(round, source) + MetaBytes(num_rows) + row * row_stride_;
}

int64_t ExchangeLayout::RegionPayloadBytes(int64_t num_rows) const {
  if (num_rows == 0) return static_cast<int64_t>(sizeof(DispatchHeader));
  return kLine - kCellBytes + MetaBytes(num_rows) + num_rows * row_stride_;
}

int64_t ExchangeLayout::ReturnCell(int64_t round, int source) const {
  return return_lines_begin_ + (round % num_buffers_ * num_ranks_ + source) * kLine;
}

int64_t ExchangeLayout::ReturnRow(int64_t round, int64_t index) const {
  return return_rows_begin_ + (round % num_buffers_ * max_rows_ * top_k_ + index) * return_stride_;
}

int64_t SegmentBytes(const ExchangeShape& shape) { return ExchangeLayout(shape).segment_bytes(); }

int64_t ScratchBytes(const ExchangeShape& shape) {
  constexpr int64_t kPointer = 8;
  const int64_t pairs = shape.max_rows * shape.top_k;
  const int64_t sends = shape.max_rows * std::min<int64_t>(shape.num_ranks, shape.top_k);
  const int64_t received = shape.num_ranks * pairs * 2 * kPointer;
  const int64_t returned = shape.num_buffers * pairs * kPointer;
  return received + returned + sends * 4 + pairs * 4 +
         int64_t{shape.num_ranks} * shape.num_experts * 4;
}

}  // namespace wideload::exchange
