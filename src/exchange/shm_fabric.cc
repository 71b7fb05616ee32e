#include "exchange/shm_fabric.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"

namespace wideload::exchange {
namespace {

// A wait notices the death of its peer between two slices.
constexpr std::chrono::milliseconds kSlice{10};

}  // namespace

ShmFabric::ShmFabric(comm::Communicator& group, int64_t segment_bytes, const std::string& job,
                     const std::string& folder, int total_threads)
    : rank_(group.rank()),
      segment_bytes_(segment_bytes),
      ladder_(WaitLadder::For(std::max(group.size(), total_threads))),
      segments_(group, std::vector<bool>(static_cast<size_t>(group.size()), true), segment_bytes,
                {.job = job, .folder = folder}) {
  ladder_.slice = kSlice;
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
