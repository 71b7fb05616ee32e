// Dispatch and combine of one rank: rows of tokens go to the ranks that own their slots, results
// come back to the rows' home. Symmetric receive buffers, one copy of a row per destination rank,
// flags that carry the round and are never reset; no barrier, no acknowledgement.
// One per rank, used by that rank's thread; the pool's threads help with copies.
//
// Rows in memory of devices: Exchange(shape, fabric, group, pool, mover), with a RowMover made from
// the rank's stream (device_rows.h). The same six calls then plan on the host and return without
// waiting for the device: x_rows, y_rows and what WaitReturns gives are host arrays of addresses in
// device memory, to be used by work that is put on that stream where the processor would touch
// them, and a call that waits has the stream wait for the other ranks' work, too.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "comm/communicator.h"
#include "comm/wait_guard.h"
#include "exchange/fabric.h"
#include "exchange/layout.h"
#include "exchange/row_mover.h"
#include "exchange/send_plan.h"

namespace wideload::exchange {

// What waits of an exchange are for.
enum class WaitKind { kCounts, kRows, kReturns };
// Kinds are numbered from 0.
inline constexpr int kNumWaitKinds = 3;

// Bytes and rows this rank has sent, itself included, since the start.
struct ExchangeTraffic {
  int64_t num_rounds = 0;
  int64_t num_rows = 0;     // out: one per token and destination rank
  int64_t num_returns = 0;  // back: one per (token, k)
};

// A round runs through six calls, in this order: PublishCounts, WaitCounts, Dispatch, Receive,
// Return, WaitReturns. Round e + 1 may begin before round e ends, for overlap:
//   - each of the six is called for rounds in order, one call per round;
//   - Dispatch of round e needs WaitReturns of round e - B; PublishCounts, of e - B - 1;
//   - Receive of a round needs Return of the one before.
// Anything else ends the process with the rule that was broken. With B = 3 a pipeline in which
// every message has the time of one computation to arrive is
//   Publish(0) Counts(0) Dispatch(0) Publish(1)
//   for e: Receive(e), if more { WaitReturns(e-2), reduce; Counts(e+1) Dispatch(e+1) Publish(e+2)
//   },
//          compute, Return(e)
//   WaitReturns of the last three, reduce
// (Publish(e+2) only if Counts(e+1) said more).
// Collective: all ranks make the same calls in the same order, also with no tokens; `more` tells
// all of them alike whether another round follows.
// Errors: a wait that cannot end throws comm::PeerLost, a rank that goes by another placement
// Error(kRunFailed) naming both ranks and what each goes by; then this object is unusable.
class Exchange {
 public:
  // fabric and group are of the same rank and outlive this object; segments at least
  // SegmentBytes(shape). `pool` (may be null) helps with large copies. `mover` (null: rows lie in
  // the segments and the processor copies them) was made for this shape and outlives this object.
  // Collective: ranks compare their shapes; all or none have a mover. Errors: kInvalid naming the
  // field in which two ranks differ, or what a mover cannot do (is_free, ranks out of reach);
  // PeerLost. Memory: ScratchBytes(shape), with a mover 16 bytes more for each of the
  // C * min(R, K) rows that a chunk sends at most; nothing is allocated afterwards.
  Exchange(const ExchangeShape& shape, Fabric& fabric, comm::Communicator& group,
           ThreadPool* pool = nullptr, RowMover* mover = nullptr);

  // The placement that the slots of the rounds to come are of; at first PlacementStamp(). All
  // rounds begun have ended. All ranks go by the same one in a round: PublishCounts and Dispatch
  // send it.
  void UsePlacement(const PlacementStamp& placement);

  // Tells all ranks how many entries of this rank's next chunk each expert gets, [E], and whether
  // this rank has tokens after that chunk. Returns at once.
  void PublishCounts(std::span<const int32_t> counts, bool more);

  // What all ranks route in a round.
  struct Counts {
    std::span<const int32_t> all;  // [R * E], row r from rank r; valid until the next WaitCounts
    bool more = false;             // some rank has tokens after this chunk: another round follows
  };
  // Waits for the counts of all ranks. Errors: PeerLost.
  Counts WaitCounts();

  // The tokens of one chunk. Rows for other ranks are read before Dispatch returns (with a mover:
  // by the work that it puts on the stream); those for this rank are not copied: they must stay as
  // they are until Return of the round (with a mover: for the work put on the stream until then).
  struct Chunk {
    const std::byte* rows = nullptr;      // num_tokens rows of row_bytes
    int64_t row_stride = 0;               // bytes between them
    int64_t num_tokens = 0;               // 0 .. C
    std::span<const int32_t> slots = {};  // [num_tokens * K], global slot ids, -1 for none
  };
  // Sends each row once to each rank that owns one of its slots. Returns without waiting.
  void Dispatch(const Chunk& chunk);

  // The rows for one of this rank's slots, in (source rank, row, k) order.
  struct SlotRows {
    // [n] row_bytes each, to read until Return; aligned as the rows of the chunk
    std::span<const std::byte* const> x_rows;
    std::span<std::byte* const> y_rows;  // [n] return_row_bytes each, to write until Return
  };
  // The sources of rows.
  enum class Part { kAll, kOwn, kOthers };
  // Waits for the rows of the sources. [slots_per_rank], valid until Return. A round is received as
  // a whole, or, of several ranks, in two parts, each with its Return before the other: so its own
  // rows are work for a rank while those of others travel, or while results travel to others.
  std::span<const SlotRows> Receive(Part part = Part::kAll);
  // Whether kOthers would not have to wait (with a mover: a stream may still have to).
  bool HasRowsOfOthers();

  // All y_rows are written: tells their sources.
  void Return();

  // --- Rounds out of step (shape.is_free): instead of WaitCounts and Receive. The other four are
  // called as above; Dispatch of a round follows its PublishCounts, whose counts are for those who
  // receive the rows. Between them TakeRows and Return are called at any time, for the rounds of
  // each source in order, however far these are ahead or behind: nobody waits for a rank that has
  // nothing to give. All ranks dispatch the same number of rounds before UsePlacement.
  struct FreeRows {
    int64_t round = 0;
    std::span<const int> sources;    // whose rows they are
    std::span<const SlotRows> rows;  // [slots_per_rank], valid until Return
  };
  // Which rows to take when several are here, always of one round: all of the lowest, or the lowest
  // of others, and the own ones only when no others are here.
  enum class Order { kTogether, kOwnLast };
  // Rows that are here, if any.
  std::optional<FreeRows> TakeRows(Order order);
  // Between TakeRows that gave this rank's own rows alone and their Return: lets others' rows be
  // taken and returned before; the x_rows and y_rows stay as they are, the spans of them do not.
  // Then TakeUpOwn is called, and Return of the own ones.
  void PutOwnAside();
  void TakeUpOwn();
  // The counts that a source published for the round last taken from it [E]; until its Return.
  std::span<const int32_t> CountsOf(int source) const;
  // Whether WaitReturns would not wait.
  bool HasReturns();
  // Whether the rows of as many rounds as this rank has dispatched were returned to every source.
  bool HasServedAll() const;
  // Returns when TakeRows would give something or HasReturns says yes.
  void WaitForWork();

  // Waits for the results of all ranks. [num_tokens * K] rows of return_row_bytes, null for slot
  // -1; valid until Dispatch of the round that is B rounds later.
  std::span<const std::byte* const> WaitReturns();

  const ExchangeShape& shape() const { return shape_; }
  // How long waits of this kind took, since the start.
  const comm::WaitStatistics& wait_statistics(WaitKind kind) const {
    return wait_statistics_[static_cast<size_t>(kind)];
  }
  const ExchangeTraffic& traffic() const { return traffic_; }
  // The rows of the traffic by destination rank [R].
  std::span<const int64_t> rows_to() const { return rows_to_; }

 private:
  struct ReturnPlace {  // of the results that come back from a rank
    int64_t offset = 0;
    int64_t num_bytes = 0;
  };
  struct Sent {  // a round between its Dispatch and its WaitReturns
    int64_t num_entries = 0;
    const std::byte* rows = nullptr;  // of the chunk
    int64_t row_stride = 0;
    std::vector<ReturnPlace> return_places;     // [R]
    std::vector<const std::byte*> return_rows;  // [C * K]
  };
  struct NextMove {  // of the rows for a rank, the one whose turn it is
    size_t row = 0;
    std::byte* to = nullptr;
  };
  struct Source {       // what was found of one rank
    int64_t round = 0;  // of its rows that come next; they have been received up to here
    int32_t num_rows = 0;
    int32_t num_pairs = 0;
    int32_t comb_offset = 0;
    const int32_t* metas = nullptr;
  };

  void CompareShapes();
  void CheckMover() const;
  void InitSegment();
  uint32_t TagOf(int64_t round) const;
  Sent& SentOf(int64_t round);
  void Await(WaitKind kind, int peer, int64_t cell, int64_t round);
  bool KeepWaiting(comm::WaitGuard& guard) const;
  [[noreturn]] void ThrowLost(comm::WaitGuard& guard, WaitKind kind, int64_t round);
  bool IsToldToEnd(std::string& reason) const;
  void TellPeersToEnd(const std::string& reason);
  void CheckPlacement(int source, const PlacementStamp& theirs, int64_t round);
  void ExpectRows(int64_t round);
  void ExpectReturns(int64_t round);
  void NoteSent(const Chunk& chunk);
  void WriteMetas(const Chunk& chunk, int dst);
  void CopyRowsTo(const Chunk& chunk, int dst, bool is_non_temporal);
  std::byte* RowPlace(int dst, int64_t offset) const;
  void MoveRows(const Chunk& chunk);
  void SignalRows(int dst);
  void BeginReceive();
  void ReceiveFrom(int source);
  void ReadSource(int source);
  void IndexRows();
  void RecordResults(int64_t round);
  // In step: of the rows that come next, of the ranks that are behind.
  int64_t CurrentRound() const;
  bool IsReceived(Part part) const;
  template <class Visit>
  void ForSources(Part part, Visit visit) const;
  // Out of step.
  void ExpectNextOf(int source);
  bool HasRowsOf(int source);
  bool HasWork();
  int MissingPeer();
  int AwaitedPeer();
  void WaitForPeer(int peer);
  void ReadCounts(int source);
  void RingBell(int dst);
  const std::byte* RowFrom(int source, int64_t row, int32_t token);

  ExchangeShape shape_;
  ExchangeLayout layout_;
  Fabric& fabric_;
  comm::Communicator& group_;
  ThreadPool* pool_;
  RowMover* mover_;
  PlacementStamp placement_;

  // Rounds for which each call has been made.
  int64_t num_published_ = 0;
  int64_t num_counted_ = 0;
  int64_t num_dispatched_ = 0;
  int64_t num_reduced_ = 0;

  SendPlan plan_;
  std::vector<const std::byte*> moves_from_;  // of the rows of a chunk, for the mover
  std::vector<std::byte*> moves_to_;
  std::vector<NextMove> next_moves_;      // [R]
  std::vector<Sent> sent_;                // [B]
  std::vector<int32_t> counts_;           // [R * E]
  std::vector<Source> sources_;           // [R]
  bool is_own_aside_ = false;             // between PutOwnAside and TakeUpOwn
  std::vector<int> received_;             // between Receive or TakeRows and Return: the sources
  std::vector<int64_t> slot_begin_;       // [slots_per_rank + 1] into x_rows_ and y_rows_
  std::vector<const std::byte*> x_rows_;  // [R * C * K]
  std::vector<std::byte*> y_rows_;        // [R * C * K]
  std::vector<SlotRows> slot_rows_;       // [slots_per_rank]
  std::array<comm::WaitStatistics, kNumWaitKinds> wait_statistics_{};
  ExchangeTraffic traffic_;
  std::vector<int64_t> rows_to_;  // [R]
};

}  // namespace wideload::exchange
