#include "exchange/shm_fabric.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"

namespace wideload::exchange {
namespace {

// A wait notices the death of its peer between two slices.
constexpr std::chrono::milliseconds kSlice{10};

EventWord& CellAt(std::byte* segment, int64_t cell) {
  return *reinterpret_cast<EventWord*>(segment + cell);
}

SegmentName NameOf(const std::string& job, const std::string& folder, int rank) {
  return {.job = job, .name = fmt::format("exchange-{}", rank), .folder = folder};
}

}  // namespace

ShmFabric::ShmFabric(comm::Communicator& group, int64_t segment_bytes, const std::string& job,
                     const std::string& folder, int total_threads)
    : rank_(group.rank()),
      segment_bytes_(segment_bytes),
      ladder_(WaitLadder::For(std::max(group.size(), total_threads))),
      segments_(static_cast<size_t>(group.size())),
      windows_(segments_.size()) {
  ladder_.slice = kSlice;
  SharedMemory& own = segments_[static_cast<size_t>(rank_)];
  try {
    own = SharedMemory::Create(NameOf(job, folder, rank_), segment_bytes);
    group.Barrier();
    for (int r = 0; r < group.size(); ++r) {
      SharedMemory& segment = segments_[static_cast<size_t>(r)];
      if (r != rank_) segment = SharedMemory::Attach(NameOf(job, folder, r));
      if (segment.size() != segment_bytes)
        Throw(ErrorKind::kInvalid, "segments have {} bytes on rank {} and {} on rank {}",
              segment_bytes, rank_, segment.size(), r);
      windows_[static_cast<size_t>(r)] = segment.data();
    }
  } catch (const comm::PeerLost&) {
    throw;
  } catch (const Error& error) {
    group.Abort(error.what());
    throw;
  }
  group.Barrier();
  own.Unlink();
}

void ShmFabric::Signal(int dst, const Message& message) {
  CellAt(Window(dst, 0), message.cell).Publish(message.tag);
}

bool ShmFabric::Test(int64_t cell, uint32_t tag) {
  return CellAt(Window(rank_, 0), cell).Load() == tag;
}

bool ShmFabric::Wait(int64_t cell, uint32_t tag, FunctionRef<bool()> keep_waiting) {
  const bool is_there = WaitFor(
      CellAt(Window(rank_, 0), cell), ladder_, [tag](uint32_t value) { return value == tag; },
      keep_waiting);
  // A peer may announce its last message and end between two looks: it is not lost.
  return is_there || Test(cell, tag);
}

}  // namespace wideload::exchange
