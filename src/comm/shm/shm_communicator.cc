#include "comm/shm/shm_communicator.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "comm/tree_sum.h"
#include "comm/wait_guard.h"
#include "parallel/mapping.h"

namespace wideload::comm {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr int64_t kLine = 128;
constexpr size_t kReasonBytes = 1024;
// How long the death of an awaited process goes unnoticed at most; a wake-up costs microseconds.
constexpr milliseconds kSlice{10};
constexpr milliseconds kAttachRetry{1};
const std::string kSegment = "group";

enum AbortState : int32_t { kRunning = 0, kWriting = 1, kAborted = 2 };

int64_t RoundUp(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

// Zero-initialised memory is a valid Control and a valid Place.
struct ShmCommunicator::Control {
  EventWord joined;
  int32_t num_ranks;
  int64_t mailbox_bytes;
  std::atomic<int32_t> abort_state;
  int32_t abort_rank;
  char reason[kReasonBytes];
};

struct ShmCommunicator::Place {
  alignas(kLine) EventWord steps;
  std::atomic<uint32_t> beats;
  alignas(kLine) std::atomic<uint32_t> progress;
  alignas(kLine) std::atomic<int32_t> is_taken;
  ProcessStamp process;
};

int64_t ShmCommunicator::SegmentBytes(int num_ranks, int64_t mailbox_bytes) {
  return RoundUp(sizeof(Control), kLine) +
         num_ranks * (static_cast<int64_t>(sizeof(Place)) + 2 * mailbox_bytes);
}

ShmCommunicator::ShmCommunicator(const ShmGroupOptions& options, GroupOptions group)
    : ShmCommunicator(options, std::move(group), nullptr, {}) {}

ShmCommunicator::ShmCommunicator(const ShmGroupOptions& options, GroupOptions group,
                                 Communicator* whole, const RankPart& part)
    : Communicator(whole, part),
      options_(options),
      group_(std::move(group)),
      rank_(options.rank),
      num_ranks_(options.num_ranks),
      mailbox_bytes_(options.mailbox_bytes),
      ladder_(WaitLadder::For(std::max(options.num_ranks, group_.total_threads))),
      pieces_(static_cast<size_t>(std::max(options.num_ranks, 0))) {
  if (num_ranks_ < 1 || rank_ < 0 || rank_ >= num_ranks_)
    Throw(ErrorKind::kInvalid, "rank {} of a group of {}", rank_, num_ranks_);
  if (mailbox_bytes_ < kLine || mailbox_bytes_ % kLine != 0)
    Throw(ErrorKind::kInvalid, "mailbox_bytes is {}; it must be a positive multiple of {}",
          mailbox_bytes_, kLine);
  if (group_.deadline.count() <= 0)
    Throw(ErrorKind::kInvalid, "the deadline of a group is {} ms; it must be positive",
          group_.deadline.count());
  ladder_.slice = std::min(kSlice, group_.deadline);
  rank_ == 0 ? Make(options) : AttachTo(options);
  Join();
  memory_.Unlink();
  WatchPeers();
}

ShmCommunicator::~ShmCommunicator() = default;

void ShmCommunicator::Make(const ShmGroupOptions& options) {
  memory_ = SharedMemory::Create({.job = options.job, .name = kSegment, .folder = options.folder},
                                 SegmentBytes(num_ranks_, mailbox_bytes_));
  control().num_ranks = num_ranks_;
  control().mailbox_bytes = mailbox_bytes_;
  place(0).process = ThisProcess();
  place(0).is_taken.store(1);
  control().joined.Increment();
}

// Rank 0 may come later, and what a dead job left under the name may still be there.
void ShmCommunicator::AttachTo(const ShmGroupOptions& options) {
  const auto end = steady_clock::now() + group_.deadline;
  while (true) {
    try {
      memory_ =
          SharedMemory::Attach({.job = options.job, .name = kSegment, .folder = options.folder});
      if (IsAlive(memory_.owner()) && control().joined.Load() > 0) break;
      memory_ = {};
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kNotFound) throw;
    }
    if (group_.is_alive && !group_.is_alive(0))
      Throw(ErrorKind::kRunFailed, "rank {}: rank 0 of job '{}' ended before the group met", rank_,
            options.job);
    if (steady_clock::now() >= end)
      Throw(ErrorKind::kRunFailed, "rank {}: rank 0 of job '{}' has not come within {:.1f} s",
            rank_, options.job, std::chrono::duration<double>(group_.deadline).count());
    std::this_thread::sleep_for(kAttachRetry);
  }
  if (control().num_ranks != num_ranks_ || control().mailbox_bytes != mailbox_bytes_)
    Throw(ErrorKind::kInvalid,
          "job '{}': rank 0 says {} ranks and mailboxes of {} bytes, rank {} says {} and {}",
          options.job, control().num_ranks, control().mailbox_bytes, rank_, num_ranks_,
          mailbox_bytes_);
  if (place(rank_).is_taken.exchange(1) != 0)
    Throw(ErrorKind::kRunFailed, "rank {} of job '{}' has joined already: it is process {}", rank_,
          options.job, place(rank_).process.pid);
  place(rank_).process = ThisProcess();
  control().joined.Increment();
}

void ShmCommunicator::Join() {
  const auto end = steady_clock::now() + group_.deadline;
  const auto all_here = [&](uint32_t joined) {
    return joined >= static_cast<uint32_t>(num_ranks_);
  };
  int dead = -1;
  const auto all_live = [&] {
    for (int r = 0; r < num_ranks_ && dead < 0 && group_.is_alive; ++r)
      if (!group_.is_alive(r)) dead = r;
    if (rank_ != 0 && dead < 0 && !IsAlive(memory_.owner())) dead = 0;
    return dead < 0;
  };
  const auto keep_waiting = [&] { return steady_clock::now() < end && !Aborted() && all_live(); };
  if (WaitFor(control().joined, ladder_, all_here, keep_waiting)) return;
  if (const auto report = Aborted())
    Throw(ErrorKind::kRunFailed, "rank {}: rank {} ended the group: {}", rank_, report->rank,
          report->reason);
  std::string missing;
  for (int r = 0; r < num_ranks_; ++r)
    if (place(r).is_taken.load() == 0)
      missing += fmt::format("{}{}", missing.empty() ? "" : ", ", r);
  const std::string reason =
      dead >= 0 ? fmt::format("rank {} ended before the group met", dead)
                : fmt::format("{} of {} ranks have joined the group within {:.1f} s; missing: {}",
                              control().joined.Load(), num_ranks_,
                              std::chrono::duration<double>(group_.deadline).count(), missing);
  Abort(reason);
  Throw(ErrorKind::kRunFailed, "rank {}: {}", rank_, reason);
}

void ShmCommunicator::WatchPeers() {
  for (int r = 0; r < num_ranks_; ++r) watches_.emplace_back(place(r).process);
  group_.is_alive = [this, other = std::move(group_.is_alive)](int peer) {
    return !watches_[static_cast<size_t>(peer)].HasEnded() && (!other || other(peer));
  };
}

ShmCommunicator::Control& ShmCommunicator::control() const {
  return *reinterpret_cast<Control*>(memory_.data());
}

ShmCommunicator::Place& ShmCommunicator::place(int rank) const {
  std::byte* const places = memory_.data() + RoundUp(sizeof(Control), kLine);
  return reinterpret_cast<Place*>(places)[rank];
}

std::byte* ShmCommunicator::mailbox(int rank) const {
  return reinterpret_cast<std::byte*>(&place(num_ranks_)) + int64_t{2} * rank * mailbox_bytes_;
}

float* ShmCommunicator::sums(int rank) const {
  return reinterpret_cast<float*>(mailbox(rank) + mailbox_bytes_);
}

void ShmCommunicator::Step() { place(rank_).steps.Publish(++step_); }

void ShmCommunicator::Await(int peer, const char* what) {
  EventWord& steps = place(peer).steps;
  // Rolling comparison: a peer may be further, and the count may wrap.
  const auto ready = [this](uint32_t done) { return static_cast<int32_t>(done - step_) >= 0; };
  if (ready(steps.Load())) return;
  WaitGuard guard(*this, peer);
  // A peer may take its last step and end between two looks: it is not lost.
  if (!WaitFor(steps, ladder_, ready, [&] { return guard.KeepWaiting(); }) && !ready(steps.Load()))
    guard.ThrowPeerLost(what);
  ++wait_statistics_.num_waits;
  wait_statistics_.total_ns += guard.ElapsedNs();
}

void ShmCommunicator::AwaitAll(const char* what) {
  for (int i = 1; i < num_ranks_; ++i) Await((rank_ + i) % num_ranks_, what);
}

// Before anything else is shown than what AllGatherColumns shows: all have read that.
void ShmCommunicator::Settle() {
  if (std::exchange(is_read_, true)) return;
  Step();
  AwaitAll("the end of an all-gather");
}

void ShmCommunicator::Barrier() {
  is_read_ = true;
  Step();
  AwaitAll("the barrier");
}

std::byte* ShmCommunicator::half(int rank) const {
  return mailbox(rank) + (is_second_half_ ? mailbox_bytes_ : 0);
}

namespace {

// Bytes [begin, end) of a rank's columns, counted row by row, between the block and `packed`.
template <class Copy>
void CopyColumns(const ColumnBlock& block, int rank, int64_t begin, int64_t end, std::byte* packed,
                 Copy copy) {
  const int64_t width = block.Width(rank);
  while (begin < end) {
    const int64_t column = begin % width;
    const int64_t count = std::min(width - column, end - begin);
    copy(block.data + begin / width * block.row_stride_bytes + block.Begin(rank) + column, packed,
         static_cast<size_t>(count));
    packed += count;
    begin += count;
  }
}

}  // namespace

// Pieces lie in the two halves of a mailbox in turns: who shows the next piece has read all of the
// last one, so the half of the one before is free without asking.
void ShmCommunicator::AllGatherColumns(const ColumnBlock& block) {
  const auto bytes_of = [&](int r) { return block.Width(r) * block.num_rows; };
  int64_t longest = 0;
  for (int r = 0; r < num_ranks_; ++r) longest = std::max(longest, bytes_of(r));
  for (int64_t begin = 0; begin < longest; begin += mailbox_bytes_) {
    const auto end_of = [&](int r) { return std::min(bytes_of(r), begin + mailbox_bytes_); };
    CopyColumns(block, rank_, begin, end_of(rank_), half(rank_),
                [](const std::byte* row, std::byte* packed, size_t count) {
                  std::memcpy(packed, row, count);
                });
    Step();
    for (int i = 1; i < num_ranks_; ++i) {
      const int peer = (rank_ + i) % num_ranks_;
      Await(peer, "the columns of an all-gather");
      CopyColumns(block, peer, begin, end_of(peer), half(peer),
                  [](std::byte* row, const std::byte* packed, size_t count) {
                    std::memcpy(row, packed, count);
                  });
    }
    is_second_half_ = !is_second_half_;
    is_read_ = false;
  }
}

std::shared_ptr<Communicator> ShmCommunicator::MakePart(const RankPart& part) {
  ShmGroupOptions options = options_;
  options.job = fmt::format("{}-part{}-{}", options_.job, num_parts_++, part.first);
  options.rank = part.PlaceOf(rank_);
  options.num_ranks = part.num_ranks;
  options.mailbox_bytes = kPartMailboxBytes;
  GroupOptions group = group_;
  group.is_alive = [this, part](int r) { return group_.is_alive(part.RankOf(r)); };
  return std::shared_ptr<Communicator>(new ShmCommunicator(options, std::move(group), this, part));
}

void ShmCommunicator::AllGather(std::span<const std::byte> mine, std::span<std::byte> all) {
  WIDELOAD_CHECK(all.size() == mine.size() * static_cast<size_t>(num_ranks_),
                 "all-gather of {} bytes from {} ranks into {}", mine.size(), num_ranks_,
                 all.size());
  Settle();
  const auto piece = static_cast<size_t>(mailbox_bytes_);
  size_t begin = 0;
  do {
    const size_t count = std::min(piece, mine.size() - begin);
    if (count > 0) std::memcpy(mailbox(rank_), mine.data() + begin, count);
    Step();
    for (int i = 1; i <= num_ranks_; ++i) {
      const int peer = (rank_ + i) % num_ranks_;
      Await(peer, "the bytes of an all-gather");
      if (count > 0)
        std::memcpy(all.data() + static_cast<size_t>(peer) * mine.size() + begin, mailbox(peer),
                    count);
    }
    Step();
    AwaitAll("the end of an all-gather");
    begin += count;
  } while (begin < mine.size());
}

// Everybody's bytes pass through its mailbox, and each rank takes its own out.
void ShmCommunicator::AllToAll(std::span<const std::byte> mine, std::span<const int64_t> ends,
                               std::span<std::byte> all) {
  const PieceOfRank own(ends, rank_);
  WIDELOAD_CHECK(static_cast<int64_t>(mine.size()) == ends.back() &&
                     all.size() == own.size * static_cast<size_t>(num_ranks_),
                 "all-to-all of {} bytes that end at {}: {} bytes from {} ranks into {}",
                 mine.size(), ends.back(), own.size, num_ranks_, all.size());
  Settle();
  const auto box = static_cast<size_t>(mailbox_bytes_);
  size_t begin = 0;
  do {
    const size_t end = std::min(begin + box, mine.size());
    if (end > begin) std::memcpy(mailbox(rank_), mine.data() + begin, end - begin);
    Step();
    const size_t first = std::max(begin, own.begin);
    const size_t last = std::min(end, own.begin + own.size);
    for (int i = 0; i < num_ranks_; ++i) {
      const int peer = (rank_ + i) % num_ranks_;
      Await(peer, "the bytes of an all-to-all");
      if (first < last)
        std::memcpy(all.data() + own.size * static_cast<size_t>(peer) + first - own.begin,
                    mailbox(peer) + first - begin, last - first);
    }
    Step();
    AwaitAll("the end of an all-to-all");
    begin = end;
  } while (begin < mine.size());
}

void ShmCommunicator::Broadcast(std::span<std::byte> data, int root) {
  WIDELOAD_CHECK(root >= 0 && root < num_ranks_, "broadcast from rank {} of {}", root, num_ranks_);
  Settle();
  const auto piece = static_cast<size_t>(mailbox_bytes_);
  size_t begin = 0;
  do {
    const size_t count = std::min(piece, data.size() - begin);
    if (root == rank_ && count > 0) std::memcpy(mailbox(rank_), data.data() + begin, count);
    Step();
    Await(root, "a broadcast");
    if (root != rank_ && count > 0) std::memcpy(data.data() + begin, mailbox(root), count);
    Step();
    AwaitAll("the end of a broadcast");
    begin += count;
  } while (begin < data.size());
}

// Each rank sums its shard of the elements, then all copy the shards.
void ShmCommunicator::ReducePiece(std::span<float> data) {
  Settle();
  const auto count = static_cast<int64_t>(data.size());
  if (count > 0) std::memcpy(mailbox(rank_), data.data(), data.size_bytes());
  Step();
  AwaitAll("the summands of an all-reduce");
  const parallel::Shard own = parallel::ShardOf(count, num_ranks_, rank_);
  for (int r = 0; r < num_ranks_; ++r)
    pieces_[static_cast<size_t>(r)] = reinterpret_cast<const float*>(mailbox(r)) + own.begin;
  TreeSum(pieces_, {sums(rank_), static_cast<size_t>(own.size())}, block_);
  Step();
  AwaitAll("its part of an all-reduce");
  for (int r = 0; r < num_ranks_; ++r) {
    const parallel::Shard shard = parallel::ShardOf(count, num_ranks_, r);
    std::copy_n(sums(r), shard.size(), data.begin() + shard.begin);
  }
  Step();
  AwaitAll("the end of an all-reduce");
}

void ShmCommunicator::AllReduceSum(std::span<float> data) {
  const size_t piece = static_cast<size_t>(mailbox_bytes_) / sizeof(float);
  size_t begin = 0;
  do {
    const size_t count = std::min(piece, data.size() - begin);
    ReducePiece(data.subspan(begin, count));
    begin += count;
  } while (begin < data.size());
}

void ShmCommunicator::Abort(const std::string& reason) {
  if (whole() != nullptr) return whole()->Abort(reason);
  int32_t expected = kRunning;
  if (!control().abort_state.compare_exchange_strong(expected, kWriting)) return;
  control().abort_rank = rank_;
  control().reason[reason.copy(control().reason, kReasonBytes - 1)] = '\0';
  control().abort_state.store(kAborted, std::memory_order_release);
}

std::optional<AbortReport> ShmCommunicator::Aborted() const {
  if (whole() != nullptr) return whole()->Aborted();
  if (control().abort_state.load(std::memory_order_acquire) != kAborted) return std::nullopt;
  return AbortReport{.rank = control().abort_rank, .reason = control().reason};
}

void ShmCommunicator::Beat() {
  if (whole() != nullptr) return whole()->Beat();
  place(rank_).beats.fetch_add(1, std::memory_order_relaxed);
}

uint32_t ShmCommunicator::BeatsOf(int peer) const {
  if (whole() != nullptr) return whole()->BeatsOf(RankInWhole(peer));
  return place(peer).beats.load(std::memory_order_relaxed);
}

std::atomic<uint32_t>& ShmCommunicator::progress() {
  return whole() != nullptr ? whole()->progress() : place(rank_).progress;
}

uint32_t ShmCommunicator::ProgressOf(int peer) const {
  if (whole() != nullptr) return whole()->ProgressOf(RankInWhole(peer));
  return place(peer).progress.load(std::memory_order_relaxed);
}

}  // namespace wideload::comm
