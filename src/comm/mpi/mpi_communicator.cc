#include "comm/mpi/mpi_communicator.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <climits>
#include <cstring>
#include <thread>

#include "base/keep_for_good.h"
#include "comm/tree_sum.h"
#include "comm/wait_guard.h"
#include "parallel/mapping.h"

namespace wideload::comm {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

enum Tag { kData = 0, kAbortTag = 1, kBeatTag = 2, kPulseTag = 3 };

constexpr microseconds kYieldTime{50};
// MPI wakes nobody: a wait that lasts polls, at longer and longer intervals.
constexpr microseconds kFirstSleep{20};
constexpr microseconds kLongestSleep{500};
// Between two looks for a dead peer, an abort and the deadline.
constexpr milliseconds kCheckInterval{5};

// A rank of another host that says nothing for so many of this rank's own beats is dead: 3.75 s, so
// that a stop of 3 s is survived and a death is noticed within 5.
constexpr milliseconds kPulsePace{250};
constexpr int kDeadBeats = 15;

int SizeOf(MPI_Comm members) {
  int size = 0;
  MPI_Comm_size(members, &size);
  return size;
}

int Count(size_t num_bytes) {
  WIDELOAD_CHECK(num_bytes <= INT_MAX, "a message of {} bytes", num_bytes);
  return static_cast<int>(num_bytes);
}

}  // namespace

void MpiShared::AddPlace(const Communicator& group) {
  const std::scoped_lock lock(mutex);
  places.insert(&group);
}

void MpiShared::RemovePlace(const Communicator& group) {
  const std::scoped_lock lock(mutex);
  places.erase(&group);
  if (group.where().iteration >= 0) last_where = group.where();
}

MpiCommunicator::MpiCommunicator(MPI_Comm members, GroupOptions group, MpiShared& shared,
                                 Communicator* whole, const RankPart& part)
    : Communicator(whole, part),
      data_(members),
      group_(std::move(group)),
      shared_(shared),
      num_ranks_(SizeOf(members)),
      pulse_counts_(num_ranks_) {
  MPI_Comm_rank(data_, &rank_);
  MPI_Comm_dup(data_, &control_);
  MPI_Comm_set_errhandler(data_, MPI_ERRORS_RETURN);
  MPI_Comm_set_errhandler(control_, MPI_ERRORS_RETURN);
  const auto count = static_cast<size_t>(num_ranks_);
  sent_.resize(count);
  received_.resize(count);
  pieces_.resize(count);
  beats_.resize(count);
  progress_.resize(count);
  beat_values_.resize(count);
  beat_requests_.resize(count, MPI_REQUEST_NULL);
  abort_requests_.resize(count, MPI_REQUEST_NULL);
  pulse_values_.resize(count);
  pulse_requests_.resize(count, MPI_REQUEST_NULL);
  if (whole == nullptr) WatchPeers();
  shared_.AddPlace(*this);
}

// A group that has lost a peer may have messages under way: their memory stays for good. Beats and
// pulses may be under way at any end, and MPI would give them to the next communicator that gets
// the number of a freed one: control_ keeps its number.
MpiCommunicator::~MpiCommunicator() {
  shared_.is_leaving = shared_.is_leaving || shared_.is_ending;
  pulse_.reset();
  shared_.RemovePlace(*this);
  KeepForGood(std::move(beat_values_));
  KeepForGood(std::move(pulse_values_));
  if (is_broken_ || abort_) {
    KeepForGood(std::move(sent_));
    KeepForGood(std::move(received_));
    KeepForGood(std::move(abort_text_));
    return;
  }
  MPI_Comm_free(&data_);
}

void MpiCommunicator::WatchPeers() {
  bool are_all_here = true;
  for (int peer = 0; peer < num_ranks_; ++peer)
    are_all_here = are_all_here && shared_.lives.IsHere(peer);
  group_.is_alive = [this, other = std::move(group_.is_alive)](int peer) {
    if (!shared_.lives.IsHere(peer) && pulse_counts_.SilentBeats(peer) >= kDeadBeats)
      shared_.lives.NoteDead(peer);
    return !shared_.lives.HasEnded(peer) && (!other || other(peer));
  };
  group_.first_dead = [this] { return shared_.lives.FirstDead(); };
  if (!are_all_here) pulse_ = std::make_unique<Pulse>(kPulsePace, [this] { SendPulses(); });
}

// To ranks of other hosts, also while this rank computes. What has come from them is taken in
// first: their silence is counted from there.
void MpiCommunicator::SendPulses() {
  ReadControl();
  pulse_counts_.CountBeat();
  const std::scoped_lock lock(control_mutex_);
  for (int peer = 0; peer < num_ranks_; ++peer)
    if (!shared_.lives.IsHere(peer))
      SendProgress(peer, kPulseTag, pulse_values_[static_cast<size_t>(peer)],
                   pulse_requests_[static_cast<size_t>(peer)]);
}

// MPI would wait for a dead rank without end; the barrier does not.
MPI_Comm MpiCommunicator::Duplicate() {
  Barrier();
  MPI_Comm copy = MPI_COMM_NULL;
  if (MPI_Comm_dup(data_, &copy) != MPI_SUCCESS)
    Throw(ErrorKind::kRunFailed, "MPI_Comm_dup of {} ranks failed", num_ranks_);
  MPI_Comm_set_errhandler(copy, MPI_ERRORS_RETURN);
  return copy;
}

void MpiCommunicator::Send(int peer, std::span<const std::byte> bytes) {
  Message& message = sent_[static_cast<size_t>(peer)];
  message.bytes.assign(bytes.begin(), bytes.end());
  const int code = MPI_Isend(message.bytes.data(), Count(bytes.size()), MPI_BYTE, peer, kData,
                             data_, &message.request);
  WIDELOAD_CHECK(code == MPI_SUCCESS, "MPI_Isend to rank {}: code {}", peer, code);
}

void MpiCommunicator::Expect(int peer, size_t num_bytes) {
  Message& message = received_[static_cast<size_t>(peer)];
  message.bytes.resize(num_bytes);
  const int code = MPI_Irecv(message.bytes.data(), Count(num_bytes), MPI_BYTE, peer, kData, data_,
                             &message.request);
  WIDELOAD_CHECK(code == MPI_SUCCESS, "MPI_Irecv from rank {}: code {}", peer, code);
}

std::span<const std::byte> MpiCommunicator::Received(int peer) const {
  return received_[static_cast<size_t>(peer)].bytes;
}

bool MpiCommunicator::IsDone(Message& message) const {
  int is_done = 0;
  const int code = MPI_Test(&message.request, &is_done, MPI_STATUS_IGNORE);
  WIDELOAD_CHECK(code == MPI_SUCCESS, "MPI_Test on rank {}: code {}", rank_, code);
  return is_done != 0;
}

void MpiCommunicator::Await(Message& message, int peer, const char* what) {
  if (IsDone(message)) return;
  WaitGuard guard(*this, peer);
  const auto finish = [&] {
    ++wait_statistics_.num_waits;
    wait_statistics_.total_ns += guard.ElapsedNs();
  };
  const auto yield_end = steady_clock::now() + kYieldTime;
  while (steady_clock::now() < yield_end) {
    YieldThread();
    if (IsDone(message)) return finish();
  }
  microseconds sleep = kFirstSleep;
  auto next_check = steady_clock::now();
  while (true) {
    if (steady_clock::now() >= next_check) {
      // A peer may send its last message and end between two looks: it is not lost.
      if (!guard.KeepWaiting() && !IsDone(message)) {
        is_broken_ = shared_.has_failed = true;
        guard.ThrowPeerLost(what);
      }
      next_check = steady_clock::now() + kCheckInterval;
    }
    if (IsDone(message)) return finish();
    std::this_thread::sleep_for(sleep);
    sleep = std::min(sleep * 2, kLongestSleep);
  }
}

void MpiCommunicator::AwaitSends(const char* what) {
  for (int i = 1; i < num_ranks_; ++i) {
    const int peer = (rank_ + i) % num_ranks_;
    Message& message = sent_[static_cast<size_t>(peer)];
    if (message.request != MPI_REQUEST_NULL) Await(message, peer, what);
  }
}

void MpiCommunicator::Barrier() {
  for (int i = 1; i < num_ranks_; ++i) {
    const int peer = (rank_ + i) % num_ranks_;
    Expect(peer, 0);
    Send(peer, {});
  }
  for (int i = 1; i < num_ranks_; ++i) {
    const int peer = (rank_ + i) % num_ranks_;
    Await(received_[static_cast<size_t>(peer)], peer, "the barrier");
  }
  AwaitSends("the barrier");
}

bool MpiCommunicator::WaitForTheLiving(milliseconds limit) {
  is_broken_ = true;
  const auto end = steady_clock::now() + limit;
  std::vector<int> missing;
  for (int i = 1; i < num_ranks_; ++i) {
    const int peer = (rank_ + i) % num_ranks_;
    missing.push_back(peer);
    if (shared_.lives.HasEnded(peer)) continue;
    // those of a barrier that was given up are still under way
    if (received_[static_cast<size_t>(peer)].request == MPI_REQUEST_NULL) Expect(peer, 0);
    if (sent_[static_cast<size_t>(peer)].request == MPI_REQUEST_NULL) Send(peer, {});
  }
  const auto has_ended = [&](int peer) { return shared_.lives.HasEnded(peer); };
  const auto has_come = [&](int peer) {
    return !has_ended(peer) && IsDone(received_[static_cast<size_t>(peer)]);
  };
  while (true) {
    std::erase_if(missing, has_come);
    if (std::all_of(missing.begin(), missing.end(), has_ended) || steady_clock::now() > end)
      return missing.empty();
    std::this_thread::sleep_for(kCheckInterval);
  }
}

void MpiCommunicator::AllGather(std::span<const std::byte> mine, std::span<std::byte> all) {
  const size_t num_bytes = mine.size();
  WIDELOAD_CHECK(all.size() == num_bytes * static_cast<size_t>(num_ranks_),
                 "all-gather of {} bytes from {} ranks into {}", num_bytes, num_ranks_, all.size());
  for (int i = 1; i < num_ranks_; ++i) {
    const int peer = (rank_ + i) % num_ranks_;
    Expect(peer, num_bytes);
    Send(peer, mine);
  }
  const auto place = [&](int r) { return all.data() + num_bytes * static_cast<size_t>(r); };
  if (num_bytes > 0) std::memcpy(place(rank_), mine.data(), num_bytes);
  for (int i = 1; i < num_ranks_; ++i) {
    const int peer = (rank_ + i) % num_ranks_;
    Await(received_[static_cast<size_t>(peer)], peer, "the bytes of an all-gather");
    if (num_bytes > 0) std::memcpy(place(peer), Received(peer).data(), num_bytes);
  }
  AwaitSends("the end of an all-gather");
}

void MpiCommunicator::AllToAll(std::span<const std::byte> mine, std::span<const int64_t> ends,
                               std::span<std::byte> all) {
  const PieceOfRank own(ends, rank_);
  WIDELOAD_CHECK(static_cast<int64_t>(mine.size()) == ends.back() &&
                     all.size() == own.size * static_cast<size_t>(num_ranks_),
                 "all-to-all of {} bytes that end at {}: {} bytes from {} ranks into {}",
                 mine.size(), ends.back(), own.size, num_ranks_, all.size());
  for (int i = 1; i < num_ranks_; ++i) {
    const int peer = (rank_ + i) % num_ranks_;
    const PieceOfRank piece(ends, peer);
    Expect(peer, own.size);
    Send(peer, mine.subspan(piece.begin, piece.size));
  }
  const auto take = [&](int peer, std::span<const std::byte> bytes) {
    if (own.size > 0)
      std::memcpy(all.data() + own.size * static_cast<size_t>(peer), bytes.data(), own.size);
  };
  take(rank_, mine.subspan(own.begin, own.size));
  for (int i = 1; i < num_ranks_; ++i) {
    const int peer = (rank_ + i) % num_ranks_;
    Await(received_[static_cast<size_t>(peer)], peer, "the bytes of an all-to-all");
    take(peer, Received(peer));
  }
  AwaitSends("the end of an all-to-all");
}

void MpiCommunicator::Broadcast(std::span<std::byte> data, int root) {
  WIDELOAD_CHECK(root >= 0 && root < num_ranks_, "broadcast from rank {} of {}", root, num_ranks_);
  if (rank_ == root) {
    for (int i = 1; i < num_ranks_; ++i) Send((rank_ + i) % num_ranks_, data);
    return AwaitSends("the end of a broadcast");
  }
  Expect(root, data.size());
  Await(received_[static_cast<size_t>(root)], root, "a broadcast");
  if (!data.empty()) std::memcpy(data.data(), Received(root).data(), data.size());
}

// Each rank sums its shard of the elements, then all gather the shards.
void MpiCommunicator::AllReduceSum(std::span<float> data) {
  const auto shard_of = [&](int r) {
    const auto shard = parallel::ShardOf(static_cast<int64_t>(data.size()), num_ranks_, r);
    return data.subspan(static_cast<size_t>(shard.begin), static_cast<size_t>(shard.size()));
  };
  const std::span<float> own = shard_of(rank_);
  for (int i = 1; i < num_ranks_; ++i) {
    const int peer = (rank_ + i) % num_ranks_;
    Expect(peer, own.size_bytes());
    Send(peer, std::as_bytes(shard_of(peer)));
  }
  for (int i = 0; i < num_ranks_; ++i) {
    const int peer = (rank_ + i) % num_ranks_;
    if (i > 0) Await(received_[static_cast<size_t>(peer)], peer, "the summands of an all-reduce");
    pieces_[static_cast<size_t>(peer)] =
        i == 0 ? own.data() : reinterpret_cast<const float*>(Received(peer).data());
  }
  AwaitSends("the summands of an all-reduce");
  sums_.resize(own.size());
  TreeSum(pieces_, sums_, block_);
  std::copy(sums_.begin(), sums_.end(), own.begin());
  for (int i = 1; i < num_ranks_; ++i) {
    const int peer = (rank_ + i) % num_ranks_;
    Expect(peer, shard_of(peer).size_bytes());
    Send(peer, std::as_bytes(own));
  }
  for (int i = 1; i < num_ranks_; ++i) {
    const int peer = (rank_ + i) % num_ranks_;
    Await(received_[static_cast<size_t>(peer)], peer, "its part of an all-reduce");
    const std::span<float> shard = shard_of(peer);
    if (!shard.empty()) std::memcpy(shard.data(), Received(peer).data(), shard.size_bytes());
  }
  AwaitSends("the end of an all-reduce");
}

std::shared_ptr<Communicator> MpiCommunicator::MakePart(const RankPart& part) {
  WIDELOAD_CHECK(part.RankOf(part.PlaceOf(rank_)) == rank_, "rank {} makes a part from {} on",
                 rank_, part.first);
  Barrier();  // MPI would wait for a dead rank without end
  MPI_Comm members = MPI_COMM_NULL;
  if (MPI_Comm_split(data_, part.first, rank_, &members) != MPI_SUCCESS)
    Throw(ErrorKind::kRunFailed, "MPI_Comm_split of {} ranks failed", num_ranks_);
  return std::make_shared<MpiCommunicator>(members, group_, shared_, this, part);
}

void MpiCommunicator::Abort(const std::string& reason) {
  if (whole() != nullptr) return whole()->Abort(reason);
  ReadControl();
  const std::scoped_lock lock(control_mutex_);
  if (abort_) return;
  abort_text_ = reason.substr(0, kReasonBytes);
  abort_ = AbortReport{.rank = rank_, .reason = abort_text_};
  for (int peer = 0; peer < num_ranks_; ++peer)
    if (peer != rank_)
      MPI_Isend(abort_text_.data(), Count(abort_text_.size()), MPI_BYTE, peer, kAbortTag, control_,
                &abort_requests_[static_cast<size_t>(peer)]);
  shared_.is_ending = true;
}

// Takes in what others have said: why they ended the group, and that they still wait.
void MpiCommunicator::ReadControl() const {
  const std::scoped_lock lock(control_mutex_);
  std::array<char, kReasonBytes> text{};
  while (true) {
    int is_there = 0;
    MPI_Status status;
    if (MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, control_, &is_there, &status) != MPI_SUCCESS ||
        is_there == 0)
      return;
    const int peer = status.MPI_SOURCE;
    int length = 0;
    MPI_Recv(text.data(), static_cast<int>(text.size()), MPI_BYTE, peer, status.MPI_TAG, control_,
             &status);
    MPI_Get_count(&status, MPI_BYTE, &length);
    pulse_counts_.Heard(peer);
    shared_.lives.Heard(peer);
    if (status.MPI_TAG == kBeatTag) ++beats_[static_cast<size_t>(peer)];
    if (status.MPI_TAG == kBeatTag || status.MPI_TAG == kPulseTag)
      std::memcpy(&progress_[static_cast<size_t>(peer)], text.data(), sizeof(uint32_t));
    if (status.MPI_TAG == kAbortTag && !abort_)
      abort_ = AbortReport{.rank = peer,
                           .reason = std::string(text.data(), static_cast<size_t>(length))};
  }
}

std::optional<AbortReport> MpiCommunicator::Aborted() const {
  if (whole() != nullptr) return whole()->Aborted();
  ReadControl();
  const std::scoped_lock lock(control_mutex_);
  if (abort_) shared_.is_ending = true;
  return abort_;
}

// Not before the last one has left: a peer that does not listen is not flooded.
void MpiCommunicator::SendProgress(int peer, int tag, uint32_t& value, MPI_Request& request) {
  int is_done = 1;
  if (MPI_Test(&request, &is_done, MPI_STATUS_IGNORE) != MPI_SUCCESS || is_done == 0) return;
  value = own_progress_.load(std::memory_order_relaxed);
  MPI_Isend(&value, sizeof(value), MPI_BYTE, peer, tag, control_, &request);
}

void MpiCommunicator::Beat() {
  if (whole() != nullptr) return whole()->Beat();
  const std::scoped_lock lock(control_mutex_);
  for (int peer = 0; peer < num_ranks_; ++peer)
    if (peer != rank_)
      SendProgress(peer, kBeatTag, beat_values_[static_cast<size_t>(peer)],
                   beat_requests_[static_cast<size_t>(peer)]);
}

uint32_t MpiCommunicator::BeatsOf(int peer) const {
  if (whole() != nullptr) return whole()->BeatsOf(RankInWhole(peer));
  ReadControl();
  const std::scoped_lock lock(control_mutex_);
  return beats_[static_cast<size_t>(peer)];
}

uint32_t MpiCommunicator::ProgressOf(int peer) const {
  if (whole() != nullptr) return whole()->ProgressOf(RankInWhole(peer));
  if (peer == rank_) return own_progress_.load(std::memory_order_relaxed);
  ReadControl();
  const std::scoped_lock lock(control_mutex_);
  return progress_[static_cast<size_t>(peer)];
}

}  // namespace wideload::comm
