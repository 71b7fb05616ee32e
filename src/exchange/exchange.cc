#include "exchange/exchange.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "comm/wait_guard.h"
#include "exchange/copy_rows.h"
#include "exchange/round_check.h"
#include "trace/trace.h"

namespace wideload::exchange {
namespace {

// Above this many bytes per round over all ranks the rows would push each other out of the caches.
constexpr int64_t kNonTemporalBytes = int64_t{8} << 20;
// Below this many bytes waking the pool costs more than it saves.
constexpr int64_t kParallelCopyBytes = int64_t{256} << 10;

std::string AwaitedText(WaitKind kind, int64_t round) {
  constexpr std::array<const char*, kNumWaitKinds> kNames = {"the counts", "the rows",
                                                             "the results"};
  return fmt::format("{} of round {}", kNames[static_cast<size_t>(kind)], round);
}

trace::SpanKind SpanOf(WaitKind kind) {
  constexpr std::array<trace::SpanKind, kNumWaitKinds> kKinds = {
      trace::SpanKind::kWaitCounts, trace::SpanKind::kWaitRows, trace::SpanKind::kWaitResults};
  return kKinds[static_cast<size_t>(kind)];
}

struct NamedField {
  const char* name;
  int64_t value;
};

std::array<NamedField, 10> Fields(const ExchangeShape& shape) {
  return {{{"num_ranks", shape.num_ranks},
           {"max_rows", shape.max_rows},
           {"top_k", shape.top_k},
           {"row_bytes", shape.row_bytes},
           {"return_row_bytes", shape.return_row_bytes},
           {"num_experts", shape.num_experts},
           {"num_slots", shape.num_slots},
           {"num_buffers", shape.num_buffers},
           {"first_epoch", shape.first_epoch},
           {"is_free", shape.is_free ? 1 : 0}}};
}

}  // namespace

Exchange::Exchange(const ExchangeShape& shape, Fabric& fabric, comm::Communicator& group,
                   ThreadPool* pool, RowMover* mover)
    : shape_((ValidateShape(shape), shape)),
      layout_(shape),
      fabric_(fabric),
      group_(group),
      pool_(pool),
      mover_(mover),
      plan_(shape),
      next_moves_(static_cast<size_t>(shape.num_ranks)),
      sent_(static_cast<size_t>(shape.num_buffers)),
      counts_(static_cast<size_t>(shape.num_ranks) * static_cast<size_t>(shape.num_experts)),
      sources_(static_cast<size_t>(shape.num_ranks)),
      slot_begin_(static_cast<size_t>(shape.slots_per_rank()) + 1),
      x_rows_(static_cast<size_t>(shape.num_ranks * shape.max_rows * shape.top_k)),
      y_rows_(x_rows_.size()),
      slot_rows_(static_cast<size_t>(shape.slots_per_rank())),
      rows_to_(static_cast<size_t>(shape.num_ranks)) {
  for (Sent& sent : sent_) {
    sent.return_places.resize(static_cast<size_t>(shape.num_ranks));
    sent.return_rows.resize(static_cast<size_t>(shape.max_rows * shape.top_k));
  }
  received_.reserve(sources_.size());
  if (mover_ != nullptr) {
    moves_from_.reserve(
        static_cast<size_t>(shape.max_rows * std::min(shape.num_ranks, shape.top_k)));
    moves_to_.reserve(moves_from_.capacity());
  }
  CompareShapes();
  CheckMover();
  InitSegment();
  if (shape_.is_free)
    for (int source = 0; source < shape_.num_ranks; ++source) ExpectNextOf(source);
  group_.Barrier();
}

void Exchange::CompareShapes() {
  WIDELOAD_CHECK(fabric_.rank() == group_.rank() && fabric_.size() == group_.size(),
                 "fabric of rank {} of {}, group of rank {} of {}", fabric_.rank(), fabric_.size(),
                 group_.rank(), group_.size());
  std::vector<ExchangeShape> all(static_cast<size_t>(group_.size()));
  group_.AllGatherValue(shape_, std::span(all));
  for (size_t r = 0; r < all.size(); ++r)
    for (size_t i = 0; i < Fields(shape_).size(); ++i) {
      const NamedField first = Fields(all[0])[i];
      const NamedField other = Fields(all[r])[i];
      if (first.value != other.value)
        Throw(ErrorKind::kInvalid,
              "exchange: {} is {} on rank 0 and {} on rank {}; it must be the same", first.name,
              first.value, other.value, r);
    }
  if (shape_.num_ranks != group_.size())
    Throw(ErrorKind::kInvalid, "exchange: num_ranks is {} in a group of {} ranks", shape_.num_ranks,
          group_.size());
  if (fabric_.segment_bytes() < layout_.segment_bytes())
    Throw(ErrorKind::kInvalid, "exchange: segments have {} bytes; this shape needs {}",
          fabric_.segment_bytes(), layout_.segment_bytes());
}

void Exchange::CheckMover() const {
  std::vector<int> has_mover(static_cast<size_t>(group_.size()));
  group_.AllGatherValue(mover_ != nullptr ? 1 : 0, std::span(has_mover));
  for (size_t r = 0; r < has_mover.size(); ++r)
    if (has_mover[r] != has_mover[0])
      Throw(
          ErrorKind::kInvalid,
          "exchange: rows lie in memory of {} on rank 0 and of {} on rank {}; it must be the same",
          has_mover[0] != 0 ? "a device" : "the host", has_mover[r] != 0 ? "a device" : "the host",
          r);
  if (mover_ == nullptr) return;
  WIDELOAD_CHECK(mover_->shape() == shape_, "a mover for the rows of another exchange");
  if (shape_.is_free)
    Throw(ErrorKind::kInvalid,
          "exchange: is_free is 1 (microbatch mode) with rows in memory of devices; allowed: 0");
  for (int r = 0; r < shape_.num_ranks; ++r)
    if (!fabric_.IsReachable(r))
      Throw(ErrorKind::kInvalid,
            "exchange: rank {} is on another host than rank {}; rows in memory of devices travel "
            "within a process only",
            r, group_.rank());
}

// Flags start at a tag that no round of the first 2^32 waits for, whatever first_epoch is.
void Exchange::InitSegment() {
  const SegmentHeader header{.magic = kSegmentMagic,
                             .version = kLayoutVersion,
                             .rank = group_.rank(),
                             .fingerprint = Fingerprint(shape_)};
  std::memcpy(fabric_.Local(0), &header, sizeof(header));
  const auto reset = [&](int64_t cell, uint32_t value) {
    reinterpret_cast<EventWord*>(fabric_.Local(cell))->Publish(value);
  };
  reset(layout_.BellCell(), 0);
  for (int r = 0; r < shape_.num_ranks; ++r) {
    reset(layout_.AbortCell(r), 0);
    fabric_.Expect(r, {.cell = layout_.AbortCell(r),
                       .tag = 1,
                       .payload_offset = layout_.AbortText(r),
                       .payload_bytes = ExchangeLayout::kAbortTextBytes});
    for (int64_t round = 0; round < layout_.num_counts_buffers(); ++round)
      reset(layout_.CountsCell(round, r), shape_.first_epoch);
    for (int64_t round = 0; round < shape_.num_buffers; ++round) {
      reset(layout_.RegionCell(round, r), shape_.first_epoch);
      reset(layout_.ReturnCell(round, r), shape_.first_epoch);
    }
  }
}

uint32_t Exchange::TagOf(int64_t round) const {
  return shape_.first_epoch + static_cast<uint32_t>(round) + 1;
}

Exchange::Sent& Exchange::SentOf(int64_t round) {
  return sent_[static_cast<size_t>(round % shape_.num_buffers)];
}

bool Exchange::IsToldToEnd(std::string& reason) const {
  for (int r = 0; r < shape_.num_ranks; ++r) {
    if (!fabric_.Test(layout_.AbortCell(r), 1)) continue;
    const auto* text = reinterpret_cast<const char*>(fabric_.Local(layout_.AbortText(r)));
    reason = fmt::format("rank {} ended the group: {}", r, text);
    return true;
  }
  return false;
}

void Exchange::TellPeersToEnd(const std::string& reason) {
  const std::string text = reason.substr(0, ExchangeLayout::kAbortTextBytes - 1);
  const int rank = group_.rank();
  for (int dst = 0; dst < shape_.num_ranks; ++dst) {
    if (dst == rank) continue;
    std::memcpy(fabric_.Window(dst, layout_.AbortText(rank)), text.c_str(), text.size() + 1);
    fabric_.Signal(dst, {.cell = layout_.AbortCell(rank),
                         .tag = 1,
                         .payload_offset = layout_.AbortText(rank),
                         .payload_bytes = static_cast<int64_t>(text.size()) + 1});
  }
}

bool Exchange::KeepWaiting(comm::WaitGuard& guard) const {
  std::string reason;
  if (!guard.KeepWaiting()) return false;
  if (!IsToldToEnd(reason)) return true;
  guard.GiveUp(std::move(reason), true);
  return false;
}

void Exchange::ThrowLost(comm::WaitGuard& guard, WaitKind kind, int64_t round) {
  try {
    guard.ThrowPeerLost(AwaitedText(kind, round));
  } catch (const comm::PeerLost& lost) {
    if (!lost.details().is_told) TellPeersToEnd(lost.what());
    throw;
  }
}

void Exchange::Await(WaitKind kind, int peer, int64_t cell, int64_t round) {
  const uint32_t tag = TagOf(round);
  if (fabric_.Test(cell, tag)) return;
  const trace::Span span(SpanOf(kind), peer);
  comm::WaitGuard guard(group_, peer);
  if (!fabric_.Wait(cell, tag, [&] { return KeepWaiting(guard); })) ThrowLost(guard, kind, round);
  comm::WaitStatistics& statistics = wait_statistics_[static_cast<size_t>(kind)];
  ++statistics.num_waits;
  statistics.total_ns += guard.ElapsedNs();
}

void Exchange::UsePlacement(const PlacementStamp& placement) {
  WIDELOAD_CHECK(num_published_ == num_reduced_,
                 "UsePlacement of generation {} before WaitReturns of round {}",
                 placement.generation, num_published_ - 1);
  WIDELOAD_CHECK(HasServedAll(), "UsePlacement of generation {} before the rows of all have come",
                 placement.generation);
  placement_ = placement;
}

void Exchange::CheckPlacement(int source, const PlacementStamp& theirs, int64_t round) {
  if (theirs == placement_) return;
  const std::string reason = fmt::format(
      "round {}: rank {} goes by placement generation {} ({:016x}), rank {} by {} ({:016x})", round,
      source, theirs.generation, theirs.digest, group_.rank(), placement_.generation,
      placement_.digest);
  TellPeersToEnd(reason);
  Throw(ErrorKind::kRunFailed, "{}", reason);
}

void Exchange::PublishCounts(std::span<const int32_t> counts, bool more) {
  const int64_t round = num_published_++;
  WIDELOAD_CHECK(round - num_reduced_ <= shape_.num_buffers,
                 "PublishCounts of round {} before WaitReturns of round {} (num_buffers {})", round,
                 round - shape_.num_buffers - 1, shape_.num_buffers);
  WIDELOAD_CHECK(counts.size() == static_cast<size_t>(shape_.num_experts),
                 "counts of {} experts, num_experts is {}", counts.size(), shape_.num_experts);
  const int rank = group_.rank();
  const int64_t payload = layout_.CountsPayload(round, rank);
  const CountsHeader header{.more = more ? 1 : 0, .placement = placement_};
  for (int source = 0; source < shape_.num_ranks && !shape_.is_free; ++source)
    fabric_.Expect(source, {.cell = layout_.CountsCell(round, source),
                            .tag = TagOf(round),
                            .payload_offset = layout_.CountsPayload(round, source),
                            .payload_bytes = layout_.counts_payload_bytes()});
  for (int i = 1; i <= shape_.num_ranks; ++i) {
    const int dst = (rank + i) % shape_.num_ranks;
    std::byte* window = fabric_.Window(dst, payload);
    std::memcpy(window, &header, sizeof(header));
    std::memcpy(window + sizeof(header), counts.data(), counts.size_bytes());
    fabric_.Signal(dst, {.cell = layout_.CountsCell(round, rank),
                         .tag = TagOf(round),
                         .payload_offset = payload,
                         .payload_bytes = layout_.counts_payload_bytes()});
  }
}

Exchange::Counts Exchange::WaitCounts() {
  const int64_t round = num_counted_++;
  WIDELOAD_CHECK(round < num_published_, "WaitCounts of round {} before PublishCounts", round);
  WIDELOAD_CHECK(!shape_.is_free, "WaitCounts of round {} out of step", round);
  const auto num_experts = static_cast<size_t>(shape_.num_experts);
  bool more = false;
  for (int i = 1; i <= shape_.num_ranks; ++i) {
    const int source = (group_.rank() + i) % shape_.num_ranks;
    Await(WaitKind::kCounts, source, layout_.CountsCell(round, source), round);
    const std::byte* payload = fabric_.Local(layout_.CountsPayload(round, source));
    CountsHeader header;
    std::memcpy(&header, payload, sizeof(header));
    CheckPlacement(source, header.placement, round);
    more = more || header.more != 0;
    const auto counts =
        std::span(counts_).subspan(static_cast<size_t>(source) * num_experts, num_experts);
    std::memcpy(counts.data(), payload + sizeof(header), counts.size_bytes());
    RequireNone(FaultOfCounts(shape_, counts), source, round);
  }
  return {.all = counts_, .more = more};
}

void Exchange::WriteMetas(const Chunk& chunk, int dst) {
  const int rank = group_.rank();
  const int64_t round = num_dispatched_;
  const std::span<const int32_t> tokens = plan_.TokensTo(dst);
  const DispatchHeader header{.generation = placement_.generation,
                              .num_rows = static_cast<int32_t>(tokens.size()),
                              .num_pairs = plan_.NumPairs(dst),
                              .comb_offset = plan_.comb_offset(dst)};
  std::memcpy(fabric_.Window(dst, layout_.RegionHeader(round, rank)), &header, sizeof(header));
  auto* meta = reinterpret_cast<int32_t*>(fabric_.Window(dst, layout_.RegionMetas(round, rank)));
  const int32_t first_slot = dst * shape_.slots_per_rank();
  const int32_t end_slot = first_slot + shape_.slots_per_rank();
  for (const int32_t token : tokens) {
    *meta++ = token;
    const int32_t* slots = chunk.slots.data() + int64_t{token} * shape_.top_k;
    for (int k = 0; k < shape_.top_k; ++k)
      *meta++ = slots[k] >= first_slot && slots[k] < end_slot ? slots[k] - first_slot : -1;
  }
}

void Exchange::CopyRowsTo(const Chunk& chunk, int dst, bool is_non_temporal) {
  const std::span<const int32_t> tokens = plan_.TokensTo(dst);
  const auto num_rows = static_cast<int64_t>(tokens.size());
  std::byte* const rows =
      fabric_.Window(dst, layout_.RegionRow(num_dispatched_, group_.rank(), num_rows, 0));
  const auto copy = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::byte* to = rows + i * layout_.row_stride();
      const std::byte* from = chunk.rows + tokens[static_cast<size_t>(i)] * chunk.row_stride;
      is_non_temporal ? CopyRowNonTemporal(to, from, shape_.row_bytes)
                      : CopyRow(to, from, shape_.row_bytes);
    }
    if (is_non_temporal) FenceStores();
  };
  const bool is_parallel = pool_ != nullptr && pool_->num_threads() > 1 &&
                           num_rows * shape_.row_bytes >= kParallelCopyBytes;
  if (!is_parallel) return copy(0, num_rows);
  const int64_t grain = (num_rows + pool_->num_threads() - 1) / pool_->num_threads();
  pool_->RunRange(num_rows, grain, [&](int64_t begin, int64_t end, int) { copy(begin, end); });
}

std::byte* Exchange::RowPlace(int dst, int64_t offset) const {
  return mover_ != nullptr ? mover_->Place(dst, offset) : fabric_.Window(dst, offset);
}

// The rows for all others as one piece of work. The copies of a row follow each other: it is read
// from memory once.
void Exchange::MoveRows(const Chunk& chunk) {
  const int64_t round = num_dispatched_;
  const int rank = group_.rank();
  moves_from_.clear();
  moves_to_.clear();
  for (int dst = 0; dst < shape_.num_ranks; ++dst) {
    const auto num_rows = std::ssize(plan_.TokensTo(dst));
    next_moves_[static_cast<size_t>(dst)] = {
        .to = RowPlace(dst, layout_.RegionRow(round, rank, num_rows, 0))};
  }
  for (int64_t token = 0; token < chunk.num_tokens; ++token)
    for (int dst = 0; dst < shape_.num_ranks; ++dst) {
      const std::span<const int32_t> tokens = plan_.TokensTo(dst);
      NextMove& next = next_moves_[static_cast<size_t>(dst)];
      if (dst == rank || next.row == tokens.size() || tokens[next.row] != token) continue;
      moves_from_.push_back(chunk.rows + token * chunk.row_stride);
      moves_to_.push_back(next.to);
      ++next.row;
      next.to += layout_.row_stride();
    }
  if (moves_from_.empty()) return;  // nobody waits for the event of a source without rows
  mover_->CopyRows(moves_from_, moves_to_, shape_.row_bytes);
  mover_->Record(Direction::kOut, round);
}

void Exchange::SignalRows(int dst) {
  const int rank = group_.rank();
  const auto num_rows = static_cast<int64_t>(plan_.TokensTo(dst).size());
  fabric_.Signal(dst, {.cell = layout_.RegionCell(num_dispatched_, rank),
                       .tag = TagOf(num_dispatched_),
                       .payload_offset = layout_.RegionHeader(num_dispatched_, rank),
                       .payload_bytes = layout_.RegionPayloadBytes(num_rows)});
  RingBell(dst);
}

// Called when this rank's own rows have left, and ExpectReturns when its results have: MPI asks the
// receiver before a large message, and the answer must not queue behind what the receiver sends.
void Exchange::ExpectRows(int64_t round) {
  for (int peer = 0; peer < shape_.num_ranks; ++peer)
    fabric_.Expect(peer, {.cell = layout_.RegionCell(round, peer),
                          .tag = TagOf(round),
                          .payload_offset = layout_.RegionHeader(round, peer),
                          .payload_bytes = layout_.region_bytes() - ExchangeLayout::kCellBytes});
}

void Exchange::ExpectReturns(int64_t round) {
  for (int peer = 0; peer < shape_.num_ranks; ++peer) {
    const ReturnPlace& place = SentOf(round).return_places[static_cast<size_t>(peer)];
    fabric_.Expect(peer, {.cell = layout_.ReturnCell(round, peer),
                          .tag = TagOf(round),
                          .payload_offset = place.offset,
                          .payload_bytes = place.num_bytes});
  }
}

void Exchange::Dispatch(const Chunk& chunk) {
  const int64_t round = num_dispatched_;
  WIDELOAD_CHECK(round < (shape_.is_free ? num_published_ : num_counted_),
                 "Dispatch of round {} before {}", round,
                 shape_.is_free ? "PublishCounts" : "WaitCounts");
  WIDELOAD_CHECK(round - num_reduced_ < shape_.num_buffers,
                 "Dispatch of round {} before WaitReturns of round {} (num_buffers {})", round,
                 round - shape_.num_buffers, shape_.num_buffers);
  WIDELOAD_CHECK(chunk.num_tokens >= 0 && chunk.num_tokens <= shape_.max_rows,
                 "a chunk of {} tokens; max_rows is {}", chunk.num_tokens, shape_.max_rows);
  const int64_t num_entries = chunk.num_tokens * shape_.top_k;
  WIDELOAD_CHECK(static_cast<int64_t>(chunk.slots.size()) == num_entries,
                 "{} slots for {} tokens of {} each", chunk.slots.size(), chunk.num_tokens,
                 shape_.top_k);
  plan_.Make(chunk.num_tokens, chunk.slots);
  const bool is_non_temporal =
      plan_.num_rows() * shape_.row_bytes * shape_.num_ranks > kNonTemporalBytes;
  if (mover_ != nullptr) MoveRows(chunk);
  for (int i = 1; i <= shape_.num_ranks; ++i) {
    const int dst = (group_.rank() + i) % shape_.num_ranks;
    WriteMetas(chunk, dst);
    if (dst != group_.rank() && mover_ == nullptr) CopyRowsTo(chunk, dst, is_non_temporal);
    if (dst == group_.rank()) NoteSent(chunk);  // its rows may be taken as soon as they are there
    SignalRows(dst);
    rows_to_[static_cast<size_t>(dst)] += std::ssize(plan_.TokensTo(dst));
  }
  shape_.is_free ? ExpectReturns(round) : ExpectRows(round);
  ++traffic_.num_rounds;
  traffic_.num_rows += plan_.num_rows();
  ++num_dispatched_;
}

// Where what comes back will lie.
void Exchange::NoteSent(const Chunk& chunk) {
  const int64_t round = num_dispatched_;
  Sent& sent = SentOf(round);
  sent.num_entries = static_cast<int64_t>(chunk.slots.size());
  sent.rows = chunk.rows;
  sent.row_stride = chunk.row_stride;
  for (int peer = 0; peer < shape_.num_ranks; ++peer)
    sent.return_places[static_cast<size_t>(peer)] = {
        .offset = layout_.ReturnRow(round, plan_.comb_offset(peer)),
        .num_bytes = plan_.NumPairs(peer) * layout_.return_stride()};
  const std::byte* const returned = RowPlace(group_.rank(), layout_.ReturnRow(round, 0));
  for (int64_t i = 0; i < sent.num_entries; ++i) {
    const int32_t index = plan_.ReturnIndex(i);
    sent.return_rows[static_cast<size_t>(i)] =
        index < 0 ? nullptr : returned + index * layout_.return_stride();
    traffic_.num_returns += index < 0 ? 0 : 1;
  }
}

}  // namespace wideload::exchange
