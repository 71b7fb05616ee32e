// The transport under the exchange: one segment of memory per rank, the same layout on all ranks,
// written by peers and announced by flags. Implementations: memory of one process (local_fabric.h),
// memory that processes share (shm_fabric.h), one message per announcement between hosts
// (mpi_fabric.h); make_fabric.h chooses. A Fabric belongs to one rank; Window may be used by any of
// its threads, the rest by the rank's own.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/thread_pool.h"
#include "base/wait.h"

namespace wideload::exchange {

// The flag `cell` bytes into a segment.
inline EventWord& CellAt(std::byte* segment, int64_t cell) {
  return *reinterpret_cast<EventWord*>(segment + cell);
}

class Fabric {
 public:
  virtual ~Fabric() = default;
  Fabric() = default;
  Fabric(const Fabric&) = delete;
  Fabric& operator=(const Fabric&) = delete;

  // This rank, 0 to size() - 1.
  virtual int rank() const = 0;
  // Ranks of the exchange.
  virtual int size() const = 0;
  // Of one rank's segment.
  virtual int64_t segment_bytes() const = 0;

  // Where this rank writes the bytes meant for `offset` of dst's segment: dst's memory itself where
  // loads and stores reach it, else memory of this rank that Signal sends from. dst may be this
  // rank. 128-byte aligned at offset 0; the same address at every call.
  virtual std::byte* Window(int dst, int64_t offset) const = 0;
  // True when Window(dst, ...) is dst's memory: what dst wrote there can be read, too.
  virtual bool IsReachable(int dst) const = 0;

  // An announcement: payload bytes [payload_offset, payload_offset + payload_bytes) of the window
  // are complete at dst before the EventWord at `cell` of dst's segment becomes `tag`. Cells lie at
  // the start of a 128-byte line; the payload never covers one.
  struct Message {
    int64_t cell = 0;
    uint32_t tag = 0;
    int64_t payload_offset = 0;
    int64_t payload_bytes = 0;
  };
  // Everything this rank's threads wrote into the payload before the call (non-temporal stores
  // fenced by the thread that made them) is covered. The payload must not change until something
  // that dst announces proves that it was read. Never waits for dst.
  virtual void Signal(int dst, const Message& message) = 0;

  // Says what `source` will announce to this rank: where its payload goes, and how large it is at
  // most. Called once for each announcement, for those of one cell in their order, before Test or
  // Wait asks for it: what travels as a message is received in place. Best right after this rank's
  // own announcements of the same kind, so that large messages travel both ways at once. The same
  // cell and tag again, and a tag that the cell holds: no effect.
  virtual void Expect(int source, const Message& message) = 0;

  // True when the EventWord at `cell` of this rank's own segment is `tag`; then the payload
  // announced with it may be read.
  virtual bool Test(int64_t cell, uint32_t tag) = 0;
  // Waits for that. Calls `keep_waiting` at least once per wait slice; returns false once it says
  // no.
  virtual bool Wait(int64_t cell, uint32_t tag, FunctionRef<bool()> keep_waiting) = 0;

  // This rank's own segment.
  std::byte* Local(int64_t offset) const { return Window(rank(), offset); }
};

}  // namespace wideload::exchange
