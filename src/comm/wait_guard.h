// What one wait for a peer checks between its slices: the group's abort word, whether the peer
// lives, the deadline. Used by one thread.
#pragma once

#include <chrono>
#include <string>

#include "comm/communicator.h"

namespace wideload::comm {

class WaitGuard {
 public:
  // `what` is what `peer` owes, in words ("the barrier"); it must outlive the guard.
  WaitGuard(Communicator& group, int peer, const std::string& what);

  // False when the wait should end; then ThrowPeerLost. A peer that passes the deadline but is seen
  // waiting itself gets up to a quarter more, so that who waits for the lost rank names it.
  bool KeepWaiting();

  // Ends the wait for a reason found elsewhere.
  void GiveUp(std::string cause, bool is_told);

  // Ends the group, unless another rank did, and throws.
  [[noreturn]] void ThrowPeerLost();

  int64_t ElapsedNs() const;

 private:
  bool IsPeerWaiting();

  Communicator& group_;
  int peer_;
  const std::string& what_;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_beat_;
  uint32_t beats_seen_;
  std::string cause_;
  bool is_told_ = false;
};

}  // namespace wideload::comm
