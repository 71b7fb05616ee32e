// Collectives of the ranks of one group, and how a rank learns that another one is lost. One
// Communicator per rank, used by that rank's thread alone; Abort and Aborted may be called by any.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace wideload::comm {

// Where in a run a rank is, for messages. -1: not in one.
struct Where {
  int64_t iteration = -1;
  int32_t layer = -1;
};

// Waits that were not over at once, and how long they lasted in all.
struct WaitStatistics {
  int64_t num_waits = 0;
  int64_t total_ns = 0;
};

// The reason a group was ended, and the rank that ended it.
struct AbortReport {
  int rank = -1;
  std::string reason = {};
};

// Ends a wait that cannot come to its end: a peer did not answer within the deadline or is dead, or
// another rank ended the group. Caught at the top of a rank's loop; the exchange and the
// communicator of that rank are unusable afterwards. Kind: kRunFailed.
class PeerLost : public Error {
 public:
  // Who waited for whom, and what is known of the lost one.
  struct Details {
    int rank = -1;  // whose wait it was
    int peer = -1;  // whose answer was awaited
    Where where = {};
    std::string awaited;   // "the counts of round 12"
    std::string cause;     // "no answer for 5.0 s", "rank 0 ended the group: ..."
    bool is_told = false;  // another rank found the fault and ended the group
  };
  // Makes the message from them.
  explicit PeerLost(Details details);
  const Details& details() const { return details_; }

 private:
  Details details_;
};

// What waits of a group have in common.
struct GroupOptions {
  int total_threads = 0;  // that compete for this machine's cores; 0: one per rank
  // Longest wait for a peer while no rank of the group gets on with its work.
  std::chrono::milliseconds deadline{4'000};
  std::function<bool(int)> is_alive = {};  // false: this rank is dead for sure; may be empty
  // The rank that was found dead first, or -1; may be empty. All waits end, whoever they are for.
  std::function<int()> first_dead = {};
};

// Rows of bytes in memory, whose columns belong to the ranks of a group: rank r has columns
// [ends[r - 1], ends[r]) of elements of element_bytes.
struct ColumnBlock {
  std::byte* data = nullptr;  // of row 0
  int64_t num_rows = 0;
  int64_t row_stride_bytes = 0;
  int64_t element_bytes = 1;
  std::span<const int64_t> ends;  // [size()], ascending

  // In bytes of a row.
  int64_t Begin(int rank) const {
    return rank == 0 ? 0 : ends[static_cast<size_t>(rank) - 1] * element_bytes;
  }
  int64_t Width(int rank) const {
    return ends[static_cast<size_t>(rank)] * element_bytes - Begin(rank);
  }
};

// The bytes for one rank, of those that end at `ends`.
struct PieceOfRank {
  size_t begin = 0;
  size_t size = 0;

  PieceOfRank(std::span<const int64_t> ends, int rank)
      : begin(rank == 0 ? 0 : static_cast<size_t>(ends[static_cast<size_t>(rank) - 1])),
        size(static_cast<size_t>(ends[static_cast<size_t>(rank)]) - begin) {}
};

// Ranks of a group: first, first + stride, and so on.
struct RankPart {
  int first = 0;
  int num_ranks = 1;
  int stride = 1;

  // In the group, of the part's rank r.
  int RankOf(int r) const { return first + r * stride; }
  // In the part, of the group's rank.
  int PlaceOf(int rank) const { return (rank - first) / stride; }
};

// Every collective is called by all ranks of the group in the same order. Each may throw PeerLost.
class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  // This rank, 0 to size() - 1.
  virtual int rank() const = 0;
  // Ranks of the group.
  virtual int size() const = 0;
  // What the group was made with.
  virtual const GroupOptions& options() const = 0;

  // Returns when all ranks have called it.
  virtual void Barrier() = 0;
  // all [size * mine.size()]: rank r's bytes at r * mine.size(). `mine` has the same size on every
  // rank (0 allowed).
  virtual void AllGather(std::span<const std::byte> mine, std::span<std::byte> all) = 0;
  // Every rank has filled its columns of each row; afterwards it has those of all. The same rows
  // and ends on every rank, wherever the block lies. Others may go on reading this rank's columns
  // until its next collective of the group has returned: they stay as they are. Memory: what the
  // medium needs, kept.
  virtual void AllGatherColumns(const ColumnBlock& block);
  // Every rank has bytes for each: those for rank r are mine[ends[r - 1], ends[r]), the same ends
  // on every rank. all [size * own piece]: what rank r has for this one at r * own piece.
  // Afterwards all have read this rank's bytes, and what it has shown before.
  virtual void AllToAll(std::span<const std::byte> mine, std::span<const int64_t> ends,
                        std::span<std::byte> all) = 0;
  // Copies root's `data` over everybody's; same size on every rank.
  virtual void Broadcast(std::span<std::byte> data, int root) = 0;
  // data[i] = sum over ranks of their data[i], fp32, on every rank the same bits: neighbours in
  // rank order are added, then the sums of neighbours, and so on: ((0+1)+(2+3))+(4+5).
  virtual void AllReduceSum(std::span<float> data) = 0;

  // Some ranks as a group of their own. Collective: each rank names the part that it is in, of
  // parts with different first ranks. Its waits are waits of this group: they end when it is ended
  // and name its ranks, and Abort, Beat and progress mean it. This group must outlive the part.
  // Owned by the rank, and of threads by those that share it. Errors: kResource.
  virtual std::shared_ptr<Communicator> MakePart(const RankPart& part) = 0;
  // The group that this one is a part of, or null.
  Communicator* whole() const { return whole_; }
  // What a rank of this group is called there; in a group that is no part, what it is called here.
  int RankInWhole(int rank) const { return part_.RankOf(rank); }

  // Ends all waits of all ranks of the group within a wait slice; they throw PeerLost with
  // `reason`. The first caller's reason stays. Not a collective.
  virtual void Abort(const std::string& reason) = 0;
  // Who aborted the group first and why; nothing while nobody has.
  virtual std::optional<AbortReport> Aborted() const = 0;
  // Tells the others that this rank still waits for somebody: called once per wait slice.
  virtual void Beat() = 0;
  // How often `peer` called Beat; a rank that is lost does not.
  virtual uint32_t BeatsOf(int peer) const = 0;
  // Counts the pieces of work that this rank has done, none longer than a second or so: others wait
  // as long as some rank gets on (ThreadPool::CountProgress). Any thread adds to it.
  virtual std::atomic<uint32_t>& progress() = 0;
  // As far as is known here: of a rank on another host, what its last beat said.
  virtual uint32_t ProgressOf(int peer) const = 0;

  // Rank r's bytes, of any size each, at all[offsets[r] .. offsets[r + 1]). Memory: grows `all` and
  // `offsets` where needed.
  void AllGatherV(std::span<const std::byte> mine, std::vector<std::byte>& all,
                  std::vector<int64_t>& offsets);
  // AllGather of one plain value; all [size].
  template <class T>
  void AllGatherValue(const T& mine, std::span<T> all) {
    AllGather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(all));
  }

  // Named in the message of a wait that fails.
  void SetWhere(const Where& where) {
    iteration_.store(where.iteration, std::memory_order_relaxed);
    layer_.store(where.layer, std::memory_order_relaxed);
  }
  // Any thread may ask.
  Where where() const {
    return {.iteration = iteration_.load(std::memory_order_relaxed),
            .layer = layer_.load(std::memory_order_relaxed)};
  }
  // The waits of this communicator's collectives since the start.
  const WaitStatistics& wait_statistics() const { return wait_statistics_; }

 protected:
  // Of a part.
  Communicator(Communicator* whole, const RankPart& part) : whole_(whole), part_(part) {}

  WaitStatistics wait_statistics_;

 private:
  Communicator* whole_ = nullptr;
  RankPart part_;
  std::atomic<int64_t> iteration_{Where{}.iteration};
  std::atomic<int32_t> layer_{Where{}.layer};
  std::vector<std::byte>
      padded_;  // of gathered pieces: this rank's and those of all, each padded to the longest
};

}  // namespace wideload::comm
