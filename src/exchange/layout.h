// What the ranks of an exchange agree on, and where each thing lies in a rank's segment. Pure.
//
//   header page | abort lines [R] | bell | counts lines [B + 1][R] | regions [B][R source] | return
//   lines [B][R] | return rows [B][C * K]
//
// A region is a 128-byte line (flag, DispatchHeader), then the metas of its rows, then, from the
// next multiple of 128, the rows: what a source sends is one contiguous piece.
#pragma once

#include <cstdint>

namespace wideload::exchange {

// The same on all ranks. Sizes in bytes need not be multiples of anything.
struct ExchangeShape {
  int num_ranks = 1;             // R
  int64_t max_rows = 0;          // C: tokens a rank sends per round at most
  int top_k = 1;                 // K
  int64_t row_bytes = 0;         // of a row on its way out
  int64_t return_row_bytes = 0;  // of a row on its way back
  int num_experts = 0;           // E
  int num_slots = 0;         // a multiple of num_ranks; rank r owns slots [r * num_slots / R, ...)
  int num_buffers = 2;       // B: rounds in flight; 1: no overlap
  uint32_t first_epoch = 0;  // tags start here; any value
  bool is_free = false;      // rounds of ranks do not go in step

  int slots_per_rank() const { return num_slots / num_ranks; }
  bool operator==(const ExchangeShape&) const = default;
};

// Errors: kInvalid naming the field, its value and what is allowed.
void ValidateShape(const ExchangeShape& shape);

// Which placement of experts a rank goes by: all ranks of a round must go by the same.
struct PlacementStamp {
  int64_t generation = 0;
  uint64_t digest = 0;  // of what the generation says
  bool operator==(const PlacementStamp&) const = default;
};

// What comes before a source's counts.
struct CountsHeader {
  int64_t more = 0;  // the source has tokens after this chunk
  PlacementStamp placement;
};

// What a region holds, written by its source.
struct DispatchHeader {
  int64_t generation = 0;  // of the placement that the slots are of
  int32_t num_rows = 0;
  int32_t num_pairs = 0;    // (row, k) entries for slots of the receiver
  int32_t comb_offset = 0;  // first row of the source's return rows that is for the receiver
};

// First bytes of a segment.
struct SegmentHeader {
  uint64_t magic = 0;
  uint32_t version = 0;
  int32_t rank = -1;
  uint64_t fingerprint = 0;  // of the shape
};
inline constexpr uint64_t kSegmentMagic = 0x68637865646C6977;  // "wildexch"
inline constexpr uint32_t kLayoutVersion = 3;
// Equal for equal shapes of the same layout version.
uint64_t Fingerprint(const ExchangeShape& shape);

// Offsets in bytes from the start of a segment. Cells are EventWords at the start of a 128-byte
// line.
class ExchangeLayout {
 public:
  // For a valid shape.
  explicit ExchangeLayout(const ExchangeShape& shape);

  // Written by source: flag, then the text of why it ended the group (zero-terminated).
  static constexpr int64_t kAbortTextBytes = 504;
  // Where `source` says that it aborts.
  int64_t AbortCell(int source) const;
  // And why.
  int64_t AbortText(int source) const { return AbortCell(source) + kCellBytes; }

  // Raised with every announcement to this rank, when rounds do not go in step.
  int64_t BellCell() const { return counts_begin_ - kLine; }

  // Flag, CountsHeader, counts int32 [E].
  int64_t num_counts_buffers() const { return num_buffers_ + 1; }
  // Where `source` announces its counts of a round.
  int64_t CountsCell(int64_t round, int source) const;
  // And the counts.
  int64_t CountsPayload(int64_t round, int source) const {
    return CountsCell(round, source) + kCellBytes;
  }
  int64_t counts_payload_bytes() const {
    return static_cast<int64_t>(sizeof(CountsHeader)) + 4 * num_experts_;
  }

  // Where `source` announces its rows of a round.
  int64_t RegionCell(int64_t round, int source) const;
  // How many rows there are, behind the cell.
  int64_t RegionHeader(int64_t round, int source) const {
    return RegionCell(round, source) + kCellBytes;
  }
  // Metas: int32 [num_rows][1 + K]: the token's index in the source's chunk, then for each k the
  // receiver's own slot (0 .. slots_per_rank - 1) or -1.
  int64_t meta_values() const { return 1 + top_k_; }
  // Token and slots of each row.
  int64_t RegionMetas(int64_t round, int source) const { return RegionCell(round, source) + kLine; }
  // Row number `row` of `num_rows`.
  int64_t RegionRow(int64_t round, int source, int64_t num_rows, int64_t row) const;
  // Bytes from RegionHeader to the end of the last row.
  int64_t RegionPayloadBytes(int64_t num_rows) const;
  int64_t region_bytes() const { return region_bytes_; }

  // Where `source` announces that its results of a round are here.
  int64_t ReturnCell(int64_t round, int source) const;
  // A result's place among the round's return rows.
  int64_t ReturnRow(int64_t round, int64_t index) const;
  int64_t row_stride() const { return row_stride_; }
  int64_t return_stride() const { return return_stride_; }

  int64_t segment_bytes() const { return segment_bytes_; }

  static constexpr int64_t kLine = 128;
  static constexpr int64_t kCellBytes = 8;
  static constexpr int64_t kPage = 4096;

 private:
  int64_t MetaBytes(int64_t num_rows) const;

  int64_t num_ranks_;
  int64_t num_buffers_;
  int64_t num_experts_;
  int64_t top_k_;
  int64_t max_rows_;
  int64_t row_stride_;
  int64_t return_stride_;
  int64_t counts_stride_;
  int64_t region_bytes_;
  int64_t abort_begin_;
  int64_t counts_begin_;
  int64_t regions_begin_;
  int64_t return_lines_begin_;
  int64_t return_rows_begin_;
  int64_t segment_bytes_;
};

// Memory of one rank: its segment, and what an Exchange keeps beside it.
int64_t SegmentBytes(const ExchangeShape& shape);
int64_t ScratchBytes(const ExchangeShape& shape);

}  // namespace wideload::exchange
