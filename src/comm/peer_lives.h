// Which ranks of a run have died, and which of them first, as far as this rank knows: of its own
// host the kernel tells at once, others are asked (life_port.h). Thread-safe after Meet.
#pragma once

#include <poll.h>

#include <atomic>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "base/host.h"
#include "base/process.h"
#include "comm/life_port.h"

namespace wideload::comm {

class PeerLives {
 public:
  // What ranks tell each other of themselves. Plain bytes.
  struct Card {
    HostId host;
    ProcessStamp process;
    LifeCard port;
  };
  Card card() const;
  // cards [ranks], with this rank's own. All ranks do this at about the same time.
  void Meet(int rank, std::span<const Card> cards);

  // Whether the peer is on this host.
  bool IsHere(int peer) const { return !peers_[static_cast<size_t>(peer)].is_far; }
  // Of this host: asks the kernel, and never waits. Of another one: whether it was found dead.
  bool HasEnded(int peer);
  // A message of it has come.
  void Heard(int peer) { ++peers_[static_cast<size_t>(peer)].num_heard; }
  // Looks for the dead among the ranks of this host alone, in one system call. By the thread that
  // calls Look. Returns FirstDead.
  int LookHere();
  // To be called at a steady pace, by one thread: looks for the dead among the ranks of this host
  // and among those of other hosts of which nothing has come since the call before the last; at
  // most 0.1 s. Those of which nothing can be known count as alive. Returns FirstDead.
  int Look();
  // This rank knows it from elsewhere.
  void NoteDead(int peer);
  // The rank that was found dead first, else -1. Who died because of it was found later.
  int FirstDead() const { return first_dead_; }

 private:
  struct Peer {
    bool is_far = false;
    ProcessWatch process;           // of this host
    std::optional<LifeWatch> port;  // of another one; nothing: it cannot be asked
    std::atomic<bool> is_dead = false;
    std::atomic<uint32_t> num_heard = 0;
    uint32_t last_heard = 0;  // at the last Look
    int num_silent = 0;       // calls of Look in a row since which nothing has come
  };

  LifePort own_;
  int rank_ = 0;
  std::deque<Peer> peers_;    // [ranks]
  std::vector<pollfd> ends_;  // [ranks] of those of this host; -1: nothing tells
  std::atomic<int> first_dead_{-1};
};

}  // namespace wideload::comm
