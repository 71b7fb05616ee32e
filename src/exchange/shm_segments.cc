#include "exchange/shm_segments.h"

#include <cstring>

#include "base/error.h"

namespace wideload::exchange {
namespace {

SegmentName NameOf(const ShmPlace& place, int rank) {
  return {.job = place.job, .name = fmt::format("exchange-{}", rank), .folder = place.folder};
}

}  // namespace

ShmSegments::ShmSegments(comm::Communicator& group, const std::vector<bool>& is_here,
                         int64_t segment_bytes, const ShmPlace& place)
    : segments_(is_here.size()), windows_(is_here.size()) {
  const auto self = static_cast<size_t>(group.rank());
  SharedMemory& own = segments_[self];
  try {
    own = SharedMemory::Create(NameOf(place, group.rank()), segment_bytes);
    std::memset(own.data(), 0, static_cast<size_t>(segment_bytes));  // touched by its reader
    group.Barrier();
    for (size_t r = 0; r < segments_.size(); ++r) {
      if (!is_here[r]) continue;
      if (r != self) segments_[r] = SharedMemory::Attach(NameOf(place, static_cast<int>(r)));
      if (segments_[r].size() != segment_bytes)
        Throw(ErrorKind::kInvalid, "segments have {} bytes on rank {} and {} on rank {}",
              segment_bytes, self, segments_[r].size(), r);
      windows_[r] = segments_[r].data();
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

}  // namespace wideload::exchange
