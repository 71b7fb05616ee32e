#include "comm/wait_guard.h"

#include <utility>

namespace wideload::comm {
namespace {

using std::chrono::steady_clock;

// A waiting rank beats once per slice of the ladder (100 ms, or the time slices of busy cores).
constexpr std::chrono::milliseconds kBeatAge{400};

}  // namespace

WaitGuard::WaitGuard(Communicator& group, int peer)
    : group_(group.whole() != nullptr ? *group.whole() : group),
      peer_(group.RankInWhole(peer)),
      start_(steady_clock::now()),
      stall_(group_),
      last_beat_(start_ - kBeatAge),
      beats_seen_(group_.BeatsOf(peer_)) {}

bool WaitGuard::IsPeerWaiting() {
  const uint32_t beats = group_.BeatsOf(peer_);
  const auto now = steady_clock::now();
  if (std::exchange(beats_seen_, beats) != beats) last_beat_ = now;
  return now - last_beat_ < kBeatAge;
}

bool WaitGuard::IsGroupEnded() {
  const auto report = group_.Aborted();
  if (!report) return false;
  GiveUp(fmt::format("rank {} ended the group: {}", report->rank, report->reason), true);
  return true;
}

bool WaitGuard::KeepWaiting() {
  group_.Beat();
  const GroupOptions& options = group_.options();
  // A rank that ends because another one has died, or has ended the group, is not the cause: what
  // it saw before it went is there when its death is seen first and the reason looked for then.
  const bool is_dead = options.is_alive && !options.is_alive(peer_);
  const int first_dead = options.first_dead ? options.first_dead() : -1;
  if (IsGroupEnded()) return false;
  if (is_dead || first_dead >= 0) {
    GiveUp(first_dead < 0 || first_dead == peer_ ? "it is dead"
                                                 : fmt::format("rank {} is dead", first_dead),
           false);
    return false;
  }
  const bool is_peer_waiting = IsPeerWaiting();
  const auto stalled = stall_.Elapsed();
  if (stalled < options.deadline) return true;
  if (is_peer_waiting && stalled < options.deadline + options.deadline / 4) return true;
  const double seconds = std::chrono::duration<double>(steady_clock::now() - start_).count();
  GiveUp(fmt::format("no answer for {:.1f} s{}", seconds,
                     is_peer_waiting ? " (it is waiting, too)" : ""),
         false);
  return false;
}

bool WaitGuard::AllLive() {
  group_.Beat();
  const GroupOptions& options = group_.options();
  int dead = options.first_dead ? options.first_dead() : -1;
  for (int r = 0; r < group_.size() && dead < 0 && options.is_alive; ++r)
    if (!options.is_alive(r)) dead = r;
  if (IsGroupEnded()) return false;
  if (dead < 0) return true;
  GiveUp(dead == peer_ ? "it is dead" : fmt::format("rank {} is dead", dead), false);
  return false;
}

void WaitGuard::GiveUp(std::string cause, bool is_told) {
  cause_ = std::move(cause);
  is_told_ = is_told;
}

void WaitGuard::ThrowPeerLost(const std::string& awaited) {
  const PeerLost lost({.rank = group_.rank(),
                       .peer = peer_,
                       .where = group_.where(),
                       .awaited = awaited,
                       .cause = cause_,
                       .is_told = is_told_});
  if (!is_told_) group_.Abort(lost.what());
  throw PeerLost(lost);
}

int64_t WaitGuard::ElapsedNs() const {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(steady_clock::now() - start_).count();
}

}  // namespace wideload::comm
