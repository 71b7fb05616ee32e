// The receiving half of Exchange.
#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "exchange/exchange.h"
#include "exchange/round_check.h"

namespace wideload::exchange {

void Exchange::ReadSource(int source) {
  const int64_t round = sources_[static_cast<size_t>(source)].round;
  DispatchHeader header;
  std::memcpy(&header, fabric_.Local(layout_.RegionHeader(round, source)), sizeof(header));
  CheckPlacement(source, {header.generation, placement_.digest}, round);
  RequireNone(FaultOfHeader(shape_, header), source, round);
  const auto* metas =
      reinterpret_cast<const int32_t*>(fabric_.Local(layout_.RegionMetas(round, source)));
  sources_[static_cast<size_t>(source)] = {.round = round,
                                           .num_rows = header.num_rows,
                                           .num_pairs = header.num_pairs,
                                           .comb_offset = header.comb_offset,
                                           .metas = metas};
  RequireNone(CountRows(shape_, header, metas, std::span(slot_begin_).subspan(1)), source, round);
}

const std::byte* Exchange::RowFrom(int source, int64_t row, int32_t token) {
  const int64_t round = sources_[static_cast<size_t>(source)].round;
  if (source == group_.rank()) return SentOf(round).rows + token * SentOf(round).row_stride;
  const int64_t num_rows = sources_[static_cast<size_t>(source)].num_rows;
  return RowPlace(group_.rank(), layout_.RegionRow(round, source, num_rows, row));
}

template <class Visit>
void Exchange::ForSources(Part part, Visit visit) const {
  for (int i = 1; i <= shape_.num_ranks; ++i) {
    const int source = (group_.rank() + i) % shape_.num_ranks;
    const bool is_own = source == group_.rank();
    if (part == Part::kAll || is_own == (part == Part::kOwn)) visit(source);
  }
}

// Second half of a counting sort: slot_begin_[s + 1] holds the number of rows of slot s.
void Exchange::IndexRows() {
  const auto num_slots = slot_rows_.size();
  for (size_t s = 0; s < num_slots; ++s) slot_begin_[s + 1] += slot_begin_[s];
  for (size_t s = 0; s < num_slots; ++s) {
    const auto begin = static_cast<size_t>(slot_begin_[s]);
    const auto count = static_cast<size_t>(slot_begin_[s + 1]) - begin;
    slot_rows_[s] = {.x_rows = std::span(x_rows_).subspan(begin, count),
                     .y_rows = std::span(y_rows_).subspan(begin, count)};
  }
  // In the order of ranks: the same rows in the same places, whoever was awaited first.
  std::ranges::sort(received_);
  for (const int source : received_) {
    const Source& from = sources_[static_cast<size_t>(source)];
    std::byte* y = RowPlace(source, layout_.ReturnRow(from.round, from.comb_offset));
    for (int64_t row = 0; row < from.num_rows; ++row) {
      const int32_t* meta = from.metas + row * layout_.meta_values();
      const std::byte* const x = RowFrom(source, row, meta[0]);
      const int32_t* slots = meta + 1;
      for (int k = 0; k < shape_.top_k; ++k) {
        if (slots[k] < 0) continue;
        const auto place = static_cast<size_t>(slot_begin_[static_cast<size_t>(slots[k])]++);
        x_rows_[place] = x;
        y_rows_[place] = y;
        y += layout_.return_stride();
      }
    }
  }
}

void Exchange::BeginReceive() {
  std::fill(slot_begin_.begin(), slot_begin_.end(), 0);
  received_.clear();
}

void Exchange::ReceiveFrom(int source) {
  ReadSource(source);
  received_.push_back(source);
  const Source& from = sources_[static_cast<size_t>(source)];
  if (mover_ != nullptr && source != group_.rank() && from.num_rows > 0)
    mover_->WaitFor(source, Direction::kOut, from.round);
}

// Behind what computed the results, if any are for others.
void Exchange::RecordResults(int64_t round) {
  const auto has_results = [&](int dst) {
    return dst != group_.rank() && sources_[static_cast<size_t>(dst)].num_pairs > 0;
  };
  if (mover_ != nullptr && std::ranges::any_of(received_, has_results))
    mover_->Record(Direction::kBack, round);
}

// Whether some rank of the part has got its results of the round before the others of all.
bool Exchange::IsReceived(Part part) const {
  bool is_received = false;
  ForSources(part, [&](int source) {
    is_received = is_received || sources_[static_cast<size_t>(source)].round > CurrentRound();
  });
  return is_received;
}

int64_t Exchange::CurrentRound() const {
  return std::ranges::min(sources_, {}, &Source::round).round;
}

bool Exchange::HasRowsOfOthers() {
  const int64_t round = CurrentRound();
  bool are_here = round < num_dispatched_;
  ForSources(Part::kOthers, [&](int source) {
    are_here = are_here && fabric_.Test(layout_.RegionCell(round, source), TagOf(round));
  });
  return are_here;
}

std::span<const Exchange::SlotRows> Exchange::Receive(Part part) {
  const int64_t round = CurrentRound();
  WIDELOAD_CHECK(round < num_dispatched_, "Receive of round {} before Dispatch", round);
  WIDELOAD_CHECK(received_.empty(), "Receive before Return of round {}", round);
  WIDELOAD_CHECK(!shape_.is_free && !IsReceived(part), "Receive of a part of round {} twice",
                 round);
  BeginReceive();
  ForSources(part, [&](int source) {
    Await(WaitKind::kRows, source, layout_.RegionCell(round, source), round);
    ReceiveFrom(source);
  });
  IndexRows();
  return slot_rows_;
}

void Exchange::Return() {
  WIDELOAD_CHECK(!received_.empty(), "Return of round {} before Receive", CurrentRound());
  const int rank = group_.rank();
  const int64_t round = sources_[static_cast<size_t>(received_.front())].round;
  RecordResults(round);
  bool has_others = shape_.num_ranks == 1;
  for (const int dst : received_) {
    Source& source = sources_[static_cast<size_t>(dst)];
    fabric_.Signal(dst, {.cell = layout_.ReturnCell(round, rank),
                         .tag = TagOf(round),
                         .payload_offset = layout_.ReturnRow(round, source.comb_offset),
                         .payload_bytes = source.num_pairs * layout_.return_stride()});
    RingBell(dst);
    ++source.round;
    has_others = has_others || dst != rank;
    if (shape_.is_free) ExpectNextOf(dst);
  }
  received_.clear();
  if (has_others && !shape_.is_free) ExpectReturns(round);
}

std::span<const std::byte* const> Exchange::WaitReturns() {
  const int64_t round = num_reduced_;
  WIDELOAD_CHECK(round < (shape_.is_free ? num_dispatched_ : CurrentRound()),
                 "WaitReturns of round {} before {}", round,
                 shape_.is_free ? "Dispatch" : "Return");
  for (int i = 1; i <= shape_.num_ranks; ++i) {
    const int source = (group_.rank() + i) % shape_.num_ranks;
    Await(WaitKind::kReturns, source, layout_.ReturnCell(round, source), round);
    const ReturnPlace& place = SentOf(round).return_places[static_cast<size_t>(source)];
    if (mover_ != nullptr && source != group_.rank() && place.num_bytes > 0)
      mover_->WaitFor(source, Direction::kBack, round);
  }
  ++num_reduced_;
  const Sent& sent = SentOf(round);
  return std::span(sent.return_rows).first(static_cast<size_t>(sent.num_entries));
}

}  // namespace wideload::exchange
