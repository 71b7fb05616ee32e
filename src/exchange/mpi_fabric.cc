#include "exchange/mpi_fabric.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/keep_for_good.h"

namespace wideload::exchange {
namespace {

using std::chrono::microseconds;
using std::chrono::steady_clock;

constexpr int64_t kLine = 128;
// Tags of MPI name the line of a cell and the low bits of the announcement's tag, so that one that
// is out of order is missed instead of taken for another.
constexpr int64_t kTagValues = 4;

// A wait polls: MPI wakes nobody, and large messages only move while it does. It gives its core
// away between two looks at first, longer than a round on a fast network takes, then sleeps a small
// part of the time it has waited: that is how late it may see the end.
constexpr microseconds kYieldTime{2000};
constexpr int kSleepPart = 64;
constexpr microseconds kLongestSleep{500};
// Between two looks for a dead peer, an abort and the deadline.
constexpr microseconds kCheckInterval{5000};

std::vector<bool> RanksHere(const comm::Hosts& hosts, int rank) {
  std::vector<bool> is_here;
  for (size_t r = 0; r < hosts.host_of_rank.size(); ++r)
    is_here.push_back(hosts.AreTogether(rank, static_cast<int>(r)));
  return is_here;
}

std::byte* Aligned(std::byte* memory) {
  const auto address = reinterpret_cast<uintptr_t>(memory);
  return memory + (kLine - address % kLine) % kLine;
}

}  // namespace

MpiFabric::MpiFabric(comm::Communicator& group, const comm::Hosts& hosts, int64_t segment_bytes,
                     const ShmPlace& place)
    : rank_(group.rank()),
      segment_bytes_(segment_bytes),
      is_here_(RanksHere(hosts, group.rank())),
      shared_(group, is_here_, segment_bytes, place),
      messages_(group) {
  CheckTags();
  MakeWindows();
}

void MpiFabric::CheckTags() const {
  const int64_t max_bytes = (int64_t{messages_.max_tag()} + 1) / kTagValues * kLine;
  if (segment_bytes_ > max_bytes)
    Throw(ErrorKind::kUnsupported,
          "the exchange between hosts would need segments of {} bytes; this MPI has tags up to {}, "
          "enough for {}: use smaller chunks (moe_max_num_tokens)",
          segment_bytes_, messages_.max_tag(), max_bytes);
}

void MpiFabric::MakeWindows() {
  for (int r = 0; r < static_cast<int>(is_here_.size()); ++r) {
    if (!IsReachable(r)) own_memory_.emplace_back(segment_bytes_ + kLine);
    windows_.push_back(IsReachable(r) ? shared_.Window(r) : Aligned(own_memory_.back().data()));
  }
}

MpiFabric::~MpiFabric() {
  if (messages_.Close()) return;
  KeepForGood(std::move(shared_));
  KeepForGood(std::move(own_memory_));
}

int MpiFabric::TagOf(const Message& message) const {
  WIDELOAD_CHECK(message.cell % kLine == 0 && message.cell < segment_bytes_,
                 "a cell at {} of a segment of {} bytes", message.cell, segment_bytes_);
  return static_cast<int>(message.cell / kLine * kTagValues + message.tag % kTagValues);
}

EventWord& MpiFabric::CellAt(int rank, int64_t cell) const {
  return *reinterpret_cast<EventWord*>(Window(rank, cell));
}

void MpiFabric::Signal(int dst, const Message& message) {
  if (IsReachable(dst)) return CellAt(dst, message.cell).Publish(message.tag);
  messages_.Send(dst, TagOf(message),
                 {Window(dst, message.payload_offset), static_cast<size_t>(message.payload_bytes)});
}

void MpiFabric::Expect(int source, const Message& message) {
  if (IsReachable(source) || CellAt(rank_, message.cell).Load() == message.tag) return;
  const auto is_awaited = [&](const Awaited& a) {
    return a.source == source && a.cell == message.cell && a.tag == message.tag;
  };
  if (std::any_of(awaited_.begin(), awaited_.end(), is_awaited)) return;
  if (free_awaited_.empty()) {
    free_awaited_.push_back(static_cast<int64_t>(awaited_.size()));
    awaited_.push_back({});
  }
  const int64_t id = free_awaited_.back();
  free_awaited_.pop_back();
  awaited_[static_cast<size_t>(id)] = {.source = source, .cell = message.cell, .tag = message.tag};
  messages_.Receive(source, TagOf(message),
                    {Local(message.payload_offset), static_cast<size_t>(message.payload_bytes)},
                    id);
}

void MpiFabric::Progress() {
  messages_.Progress([this](int64_t id) {
    Awaited& awaited = awaited_[static_cast<size_t>(id)];
    CellAt(rank_, awaited.cell).Publish(awaited.tag);
    awaited.source = -1;
    free_awaited_.push_back(id);
  });
}

bool MpiFabric::Test(int64_t cell, uint32_t tag) {
  if (CellAt(rank_, cell).Load() == tag) return true;
  Progress();
  return CellAt(rank_, cell).Load() == tag;
}

bool MpiFabric::Wait(int64_t cell, uint32_t tag, FunctionRef<bool()> keep_waiting) {
  EventWord& word = CellAt(rank_, cell);
  const auto start = steady_clock::now();
  auto next_check = start + kYieldTime;
  while (!Test(cell, tag)) {
    const auto now = steady_clock::now();
    const auto waited = std::chrono::duration_cast<microseconds>(now - start);
    if (waited < kYieldTime) {
      YieldThread();
      continue;
    }
    if (now >= next_check) {
      // A peer may announce its last message and end between two looks: it is not lost.
      if (!keep_waiting()) return Test(cell, tag);
      next_check = now + kCheckInterval;
    }
    // A rank of this host wakes it.
    const uint32_t seen = word.Load();
    if (seen != tag) word.Sleep(seen, std::min(waited / kSleepPart, kLongestSleep));
  }
  return true;
}

}  // namespace wideload::exchange
