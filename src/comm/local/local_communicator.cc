#include "comm/local/local_communicator.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "comm/tree_sum.h"
#include "comm/wait_guard.h"
#include "parallel/mapping.h"

namespace wideload::comm {
namespace {

const std::string kBarrier = "the barrier";
const std::string kAllGather = "the bytes of an all-gather";
const std::string kAllGatherEnd = "the end of an all-gather";
const std::string kAllToAll = "the bytes of an all-to-all";
const std::string kAllToAllEnd = "the end of an all-to-all";
const std::string kColumns = "the columns of an all-gather";
const std::string kBroadcast = "a broadcast";
const std::string kBroadcastEnd = "the end of a broadcast";
const std::string kReduce = "the summands of an all-reduce";
const std::string kReducePart = "its part of an all-reduce";
const std::string kReduceEnd = "the end of an all-reduce";

}  // namespace

// Own columns of a block, as they are shown to the others.
struct ShownColumns {
  const std::byte* data = nullptr;  // of row 0
  int64_t num_rows = 0;
  int64_t row_stride_bytes = 0;
  int64_t width_bytes = 0;
};

// A rank counts its steps; others wait until its published count has come as far as their own.
// Memory that a step shows to others is reused only after a later step of all of them.
class LocalGroup::Rank final : public Communicator {
 public:
  Rank(LocalGroup& group, int rank, int num_ranks)
      : group_(group), rank_(rank), num_ranks_(num_ranks) {}
  Rank(LocalGroup& group, int rank, Communicator& whole, const RankPart& part)
      : Communicator(&whole, part), group_(group), rank_(rank), num_ranks_(part.num_ranks) {}

  int rank() const override { return rank_; }
  int size() const override { return num_ranks_; }
  const GroupOptions& options() const override { return group_.options_; }
  void Abort(const std::string& reason) override {
    whole() != nullptr ? whole()->Abort(reason) : group_.Abort(rank_, reason);
  }
  std::optional<AbortReport> Aborted() const override {
    return whole() != nullptr ? whole()->Aborted() : group_.Aborted();
  }
  void Beat() override {
    if (whole() != nullptr) return whole()->Beat();
    beats_.fetch_add(1, std::memory_order_relaxed);
  }
  uint32_t BeatsOf(int peer) const override {
    if (whole() != nullptr) return whole()->BeatsOf(RankInWhole(peer));
    return Peer(peer).beats_.load(std::memory_order_relaxed);
  }
  std::atomic<uint32_t>& progress() override {
    return whole() != nullptr ? whole()->progress() : progress_;
  }
  uint32_t ProgressOf(int peer) const override {
    if (whole() != nullptr) return whole()->ProgressOf(RankInWhole(peer));
    return Peer(peer).progress_.load(std::memory_order_relaxed);
  }

  std::shared_ptr<Communicator> MakePart(const RankPart& ranks) override {
    const std::shared_ptr<LocalGroup> part = group_.PartOf(num_parts_++, ranks);
    Communicator* const rank = &part->rank(ranks.PlaceOf(rank_));
    Barrier();  // nobody lets go of a part before all have it
    return {part, rank};
  }

  void Barrier() override {
    Step();
    AwaitAll(kBarrier);
  }

  void AllGather(std::span<const std::byte> mine, std::span<std::byte> all) override {
    WIDELOAD_CHECK(all.size() == mine.size() * static_cast<size_t>(num_ranks_),
                   "all-gather of {} bytes from {} ranks into {}", mine.size(), num_ranks_,
                   all.size());
    shown_ = mine;
    Step();
    for (int i = 1; i <= num_ranks_; ++i) {
      const int peer = (rank_ + i) % num_ranks_;
      Await(peer, kAllGather);
      const std::span<const std::byte> bytes = Peer(peer).shown_;
      WIDELOAD_CHECK(bytes.size() == mine.size(), "all-gather: rank {} gives {} bytes, rank {} {}",
                     rank_, mine.size(), peer, bytes.size());
      if (!bytes.empty())
        std::memcpy(all.data() + bytes.size() * static_cast<size_t>(peer), bytes.data(),
                    bytes.size());
    }
    Step();
    AwaitAll(kAllGatherEnd);
  }

  void AllGatherColumns(const ColumnBlock& block) override {
    // Who shows the next block has read this one, so two places suffice without asking.
    is_second_block_ = !is_second_block_;
    const auto place = static_cast<size_t>(is_second_block_);
    shown_columns_[place] = {.data = block.data + block.Begin(rank_),
                             .num_rows = block.num_rows,
                             .row_stride_bytes = block.row_stride_bytes,
                             .width_bytes = block.Width(rank_)};
    Step();
    for (int i = 1; i < num_ranks_; ++i) {
      const int peer = (rank_ + i) % num_ranks_;
      Await(peer, kColumns);
      const ShownColumns& theirs = Peer(peer).shown_columns_[place];
      WIDELOAD_CHECK(theirs.num_rows == block.num_rows && theirs.width_bytes == block.Width(peer),
                     "columns of rank {}: {} rows of {} bytes here, {} of {} there", peer,
                     block.num_rows, block.Width(peer), theirs.num_rows, theirs.width_bytes);
      const auto width = static_cast<size_t>(block.Width(peer));
      const std::byte* from = theirs.data;
      std::byte* to = block.data + block.Begin(peer);
      for (int64_t row = 0; row < block.num_rows && width > 0; ++row) {
        std::memcpy(to, from, width);
        from += theirs.row_stride_bytes;
        to += block.row_stride_bytes;
      }
    }
  }

  void AllToAll(std::span<const std::byte> mine, std::span<const int64_t> ends,
                std::span<std::byte> all) override {
    const PieceOfRank own(ends, rank_);
    WIDELOAD_CHECK(static_cast<int64_t>(mine.size()) == ends.back() &&
                       all.size() == own.size * static_cast<size_t>(num_ranks_),
                   "all-to-all of {} bytes that end at {}: {} bytes from {} ranks into {}",
                   mine.size(), ends.back(), own.size, num_ranks_, all.size());
    shown_ = mine;
    Step();
    for (int i = 0; i < num_ranks_; ++i) {
      const int peer = (rank_ + i) % num_ranks_;
      Await(peer, kAllToAll);
      if (own.size > 0)
        std::memcpy(all.data() + own.size * static_cast<size_t>(peer),
                    Peer(peer).shown_.data() + own.begin, own.size);
    }
    Step();
    AwaitAll(kAllToAllEnd);
  }

  void Broadcast(std::span<std::byte> data, int root) override {
    WIDELOAD_CHECK(root >= 0 && root < num_ranks_, "broadcast from rank {} of {}", root,
                   num_ranks_);
    shown_ = data;
    Step();
    if (root != rank_) {
      Await(root, kBroadcast);
      const std::span<const std::byte> bytes = Peer(root).shown_;
      WIDELOAD_CHECK(bytes.size() == data.size(), "broadcast: rank {} expects {} bytes, root {}",
                     rank_, data.size(), bytes.size());
      if (!bytes.empty()) std::memcpy(data.data(), bytes.data(), bytes.size());
    }
    Step();
    AwaitAll(kBroadcastEnd);
  }

  // Each rank sums its shard of the elements, then all gather the shards.
  void AllReduceSum(std::span<float> data) override {
    const auto count = static_cast<int64_t>(data.size());
    shown_ = std::as_bytes(data);
    Step();
    AwaitAll(kReduce);
    const parallel::Shard own = parallel::ShardOf(count, num_ranks_, rank_);
    sums_.resize(static_cast<size_t>(own.size()));
    SumShard(own);
    Step();
    AwaitAll(kReducePart);
    for (int r = 0; r < num_ranks_; ++r) {
      const parallel::Shard shard = parallel::ShardOf(count, num_ranks_, r);
      const std::vector<float>& sums = Peer(r).sums_;
      std::copy(sums.begin(), sums.end(), data.begin() + shard.begin);
    }
    Step();
    AwaitAll(kReduceEnd);
  }

 private:
  Rank& Peer(int peer) const { return *group_.ranks_[static_cast<size_t>(peer)]; }

  void Step() { steps_.Publish(++step_); }

  void Await(int peer, const std::string& what) {
    EventWord& steps = Peer(peer).steps_;
    // Rolling comparison: a peer may be further, and the count may wrap.
    const auto ready = [this](uint32_t steps_done) {
      return static_cast<int32_t>(steps_done - step_) >= 0;
    };
    if (ready(steps.Load())) return;
    WaitGuard guard(*this, peer);
    if (!WaitFor(steps, group_.ladder_, ready, [&] { return guard.KeepWaiting(); }))
      guard.ThrowPeerLost(what);
    ++wait_statistics_.num_waits;
    wait_statistics_.total_ns += guard.ElapsedNs();
  }

  void AwaitAll(const std::string& what) {
    for (int i = 1; i < num_ranks_; ++i) Await((rank_ + i) % num_ranks_, what);
  }

  void SumShard(const parallel::Shard& shard) {
    summands_.clear();
    for (int r = 0; r < num_ranks_; ++r)
      summands_.push_back(reinterpret_cast<const float*>(Peer(r).shown_.data()) + shard.begin);
    TreeSum(summands_, sums_, block_);
  }

  LocalGroup& group_;
  int rank_;
  int num_ranks_;
  uint32_t step_ = 0;  // steps this rank has taken
  int64_t num_parts_ = 0;
  std::span<const std::byte> shown_;           // what a step shows to the others
  std::array<ShownColumns, 2> shown_columns_;  // likewise, in turns
  bool is_second_block_ = false;
  std::vector<float> sums_;             // all-reduce: this rank's shard, shown to the others
  std::vector<const float*> summands_;  // [num_ranks]
  std::vector<float> block_;
  alignas(128) EventWord steps_;  // step_, published
  alignas(128) std::atomic<uint32_t> beats_{0};
  alignas(128) std::atomic<uint32_t> progress_{0};
};

LocalGroup::LocalGroup(int num_ranks, GroupOptions options)
    : options_(std::move(options)),
      ladder_(WaitLadder::For(std::max(num_ranks, options_.total_threads))) {
  if (num_ranks < 1) Throw(ErrorKind::kInvalid, "a group of {} ranks; at least 1", num_ranks);
  if (options_.deadline.count() <= 0)
    Throw(ErrorKind::kInvalid, "the deadline of a group is {} ms; it must be positive",
          options_.deadline.count());
  ladder_.slice = std::min(ladder_.slice, options_.deadline);
  for (int r = 0; r < num_ranks; ++r) ranks_.push_back(std::make_unique<Rank>(*this, r, num_ranks));
}

LocalGroup::LocalGroup(LocalGroup& whole, const RankPart& part)
    : options_(whole.options_), ladder_(whole.ladder_) {
  for (int r = 0; r < part.num_ranks; ++r)
    ranks_.push_back(std::make_unique<Rank>(*this, r, whole.rank(part.RankOf(r)), part));
}

LocalGroup::~LocalGroup() = default;

std::shared_ptr<LocalGroup> LocalGroup::PartOf(int64_t call, const RankPart& ranks) {
  const std::scoped_lock lock(parts_mutex_);
  std::weak_ptr<LocalGroup>& known = parts_[{call, ranks.first}];
  std::shared_ptr<LocalGroup> part = known.lock();
  if (part == nullptr) {
    part = std::shared_ptr<LocalGroup>(new LocalGroup(*this, ranks));
    known = part;
  }
  WIDELOAD_CHECK(part->size() == ranks.num_ranks, "ranks from {} on: a part of {} and of {}",
                 ranks.first, part->size(), ranks.num_ranks);
  return part;
}

Communicator& LocalGroup::rank(int r) {
  WIDELOAD_CHECK(r >= 0 && r < size(), "rank {} of {}", r, size());
  return *ranks_[static_cast<size_t>(r)];
}

void LocalGroup::Abort(int rank, const std::string& reason) {
  const std::scoped_lock lock(abort_mutex_);
  if (is_aborted_.load(std::memory_order_relaxed)) return;
  abort_report_.rank = rank;
  try {
    abort_report_.reason = reason;
  } catch (const std::bad_alloc&) {
    abort_report_.reason.clear();  // that it ended matters more than why
  }
  is_aborted_.store(true, std::memory_order_release);
}

std::optional<AbortReport> LocalGroup::Aborted() const {
  if (!is_aborted_.load(std::memory_order_acquire)) return std::nullopt;
  return abort_report_;  // written once, before the flag
}

}  // namespace wideload::comm
