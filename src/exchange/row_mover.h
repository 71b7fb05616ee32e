// Where the rows of an exchange lie, and what moves them, when that is not the processor: memory of
// devices, work on their streams (device_rows.h). Counts, headers, metas and flags stay in the
// segments of the Fabric, written and read by the host. Belongs to one rank's thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "exchange/layout.h"

namespace wideload::exchange {

// Which way rows go: to the ranks that own their slots, or home.
enum class Direction { kOut, kBack };
inline constexpr int kNumDirections = 2;

class RowMover {
 public:
  virtual ~RowMover() = default;
  RowMover() = default;
  RowMover(const RowMover&) = delete;
  RowMover& operator=(const RowMover&) = delete;

  // Of the exchange that it was made for.
  virtual const ExchangeShape& shape() const = 0;
  // Where the row at `offset` of dst's segment (ExchangeLayout) lies; dst may be this rank.
  // 128-byte aligned, the same address at every call.
  virtual std::byte* Place(int dst, int64_t offset) const = 0;
  // Puts copies of row_bytes each, from[i] to to[i], on this rank's stream. The spans may change at
  // once.
  virtual void CopyRows(std::span<const std::byte* const> from, std::span<std::byte* const> to,
                        int64_t row_bytes) = 0;
  // Marks the place on this rank's stream that others wait for: behind the copies of the round's
  // rows (kOut) or what computed its results (kBack). Called before the flags that announce them
  // are raised, and never while others may wait for the mark of the round B rounds before.
  virtual void Record(Direction direction, int64_t round) = 0;
  // What is put on this rank's stream from now on comes after the mark of another rank. Called once
  // the flag that announces it was seen, so the mark is there.
  virtual void WaitFor(int source, Direction direction, int64_t round) = 0;
};

}  // namespace wideload::exchange
