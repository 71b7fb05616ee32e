// What one wait for a peer checks between its slices: the group's abort word, whether the peer
// lives, whether the group gets on, the deadline. Used by one thread.
#pragma once

#include <chrono>
#include <string>

#include "comm/communicator.h"
#include "comm/stall_timer.h"

namespace wideload::comm {

class WaitGuard {
 public:
  // For one wait, which begins now. `group` must outlive this object.
  WaitGuard(Communicator& group, int peer);

  // False when the wait should end; then ThrowPeerLost. The deadline is for the time in which no
  // rank of the group gets on with its work. A peer that passes it but is seen waiting itself gets
  // up to a quarter more, so that who waits for the lost rank names it.
  bool KeepWaiting();

  // The same without a deadline: false once any rank is known to be dead or has ended the group.
  bool AllLive();

  // Ends the wait for a reason found elsewhere.
  void GiveUp(std::string cause, bool is_told);

  // Ends the group, unless another rank did, and throws. `awaited` is what the peer owes, in words
  // ("the barrier").
  [[noreturn]] void ThrowPeerLost(const std::string& awaited);

  // Since the wait began.
  int64_t ElapsedNs() const;

 private:
  bool IsPeerWaiting();
  bool IsGroupEnded();

  Communicator& group_;
  int peer_;
  std::chrono::steady_clock::time_point start_;
  StallTimer stall_;
  std::chrono::steady_clock::time_point last_beat_;
  uint32_t beats_seen_;
  std::string cause_;
  bool is_told_ = false;
};

}  // namespace wideload::comm
