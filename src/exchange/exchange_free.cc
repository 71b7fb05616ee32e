// What Exchange does when the rounds of ranks do not go in step.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/error.h"
#include "base/wait.h"
#include "comm/wait_guard.h"
#include "exchange/exchange.h"
#include "exchange/round_check.h"
#include "trace/trace.h"

namespace wideload::exchange {
namespace {

// Longest sleep: what rings no bell here is found by looking.
constexpr std::chrono::milliseconds kBellSlice{2};
constexpr std::chrono::milliseconds kMessageSlice{1};

}  // namespace

// A rank that is ahead sends its next rows before this one has come to that round.
void Exchange::ExpectNextOf(int source) {
  const int64_t round = sources_[static_cast<size_t>(source)].round;
  fabric_.Expect(source, {.cell = layout_.CountsCell(round, source),
                          .tag = TagOf(round),
                          .payload_offset = layout_.CountsPayload(round, source),
                          .payload_bytes = layout_.counts_payload_bytes()});
  fabric_.Expect(source, {.cell = layout_.RegionCell(round, source),
                          .tag = TagOf(round),
                          .payload_offset = layout_.RegionHeader(round, source),
                          .payload_bytes = layout_.region_bytes() - ExchangeLayout::kCellBytes});
}

bool Exchange::HasRowsOf(int source) {
  const int64_t round = sources_[static_cast<size_t>(source)].round;
  return fabric_.Test(layout_.CountsCell(round, source), TagOf(round)) &&
         fabric_.Test(layout_.RegionCell(round, source), TagOf(round));
}

void Exchange::ReadCounts(int source) {
  const int64_t round = sources_[static_cast<size_t>(source)].round;
  const std::byte* payload = fabric_.Local(layout_.CountsPayload(round, source));
  CountsHeader header;
  std::memcpy(&header, payload, sizeof(header));
  CheckPlacement(source, header.placement, round);
  const auto num_experts = static_cast<size_t>(shape_.num_experts);
  std::memcpy(counts_.data() + static_cast<size_t>(source) * num_experts, payload + sizeof(header),
              num_experts * sizeof(int32_t));
  RequireNone(FaultOfCounts(shape_, CountsOf(source)), source, round);
}

std::span<const int32_t> Exchange::CountsOf(int source) const {
  const auto num_experts = static_cast<size_t>(shape_.num_experts);
  return std::span(counts_).subspan(static_cast<size_t>(source) * num_experts, num_experts);
}

std::optional<Exchange::FreeRows> Exchange::TakeRows(Order order) {
  WIDELOAD_CHECK(shape_.is_free && received_.empty(), "TakeRows before Return");
  const int own = group_.rank();
  int64_t round = -1;  // the lowest: who is behind goes first
  const auto consider = [&](int source) {
    const int64_t next = sources_[static_cast<size_t>(source)].round;
    if ((round < 0 || next < round) && HasRowsOf(source)) round = next;
  };
  for (int source = 0; source < shape_.num_ranks; ++source)
    if (source != own) consider(source);
  const bool waits_for_others = order == Order::kOwnLast && round >= 0;
  if (!waits_for_others && !is_own_aside_) consider(own);
  if (round < 0) return std::nullopt;
  BeginReceive();
  for (int source = 0; source < shape_.num_ranks; ++source) {
    if (sources_[static_cast<size_t>(source)].round != round ||
        (source == own && (waits_for_others || is_own_aside_)) || !HasRowsOf(source))
      continue;
    ReadCounts(source);
    ReceiveFrom(source);
  }
  IndexRows();
  return FreeRows{.round = round, .sources = received_, .rows = slot_rows_};
}

void Exchange::PutOwnAside() {
  WIDELOAD_CHECK(shape_.is_free && received_.size() == 1 && received_[0] == group_.rank(),
                 "PutOwnAside of {} sources", received_.size());
  received_.clear();
  is_own_aside_ = true;
}

void Exchange::TakeUpOwn() {
  WIDELOAD_CHECK(is_own_aside_ && received_.empty(), "TakeUpOwn before {}",
                 is_own_aside_ ? "Return" : "PutOwnAside");
  received_.push_back(group_.rank());
  is_own_aside_ = false;
}

bool Exchange::HasReturns() { return num_reduced_ < num_dispatched_ && MissingPeer() < 0; }

// Whose results of the oldest round are not here, or -1.
int Exchange::MissingPeer() {
  for (int peer = 0; peer < shape_.num_ranks; ++peer)
    if (!fabric_.Test(layout_.ReturnCell(num_reduced_, peer), TagOf(num_reduced_))) return peer;
  return -1;
}

bool Exchange::HasServedAll() const {
  return std::ranges::all_of(
      sources_, [this](const Source& source) { return source.round == num_dispatched_; });
}

void Exchange::RingBell(int dst) {
  if (!shape_.is_free || !fabric_.IsReachable(dst)) return;
  reinterpret_cast<EventWord*>(fabric_.Window(dst, layout_.BellCell()))->Increment();
}

bool Exchange::HasWork() {
  for (int source = 0; source < shape_.num_ranks; ++source)
    if (HasRowsOf(source)) return true;
  return HasReturns();
}

// Of the ranks that owe this one something, one.
int Exchange::AwaitedPeer() {
  if (num_reduced_ < num_dispatched_) return MissingPeer();
  const auto behind = std::ranges::min_element(sources_, {}, &Source::round);
  return static_cast<int>(behind - sources_.begin());
}

void Exchange::WaitForWork() {
  while (!HasWork()) WaitForPeer(AwaitedPeer());
}

// Until there is work, or another peer is awaited.
void Exchange::WaitForPeer(int peer) {
  if (peer < 0) return;  // it has just come
  const bool awaits_returns = num_reduced_ < num_dispatched_;
  const WaitKind kind = awaits_returns ? WaitKind::kReturns : WaitKind::kRows;
  const int64_t round = awaits_returns ? num_reduced_ : sources_[static_cast<size_t>(peer)].round;
  const trace::Span span(
      awaits_returns ? trace::SpanKind::kWaitResults : trace::SpanKind::kWaitRows, peer);
  comm::WaitGuard guard(group_, peer);
  bool are_all_here = true;
  for (int r = 0; r < shape_.num_ranks; ++r) are_all_here = are_all_here && fabric_.IsReachable(r);
  const int total_threads = group_.options().total_threads;
  WaitLadder ladder = WaitLadder::For(total_threads > 0 ? total_threads : shape_.num_ranks);
  ladder.slice = are_all_here ? kBellSlice : kMessageSlice;
  auto& bell = *reinterpret_cast<EventWord*>(fabric_.Local(layout_.BellCell()));
  const auto is_over = [&](uint32_t) { return HasWork() || AwaitedPeer() != peer; };
  if (!WaitFor(bell, ladder, is_over, [&] { return KeepWaiting(guard); }))
    ThrowLost(guard, kind, round);
  comm::WaitStatistics& statistics = wait_statistics_[static_cast<size_t>(kind)];
  ++statistics.num_waits;
  statistics.total_ns += guard.ElapsedNs();
}

}  // namespace wideload::exchange
