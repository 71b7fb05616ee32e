// Messages of any length between rank 0 and each other rank, over a Fabric of their own: one inbox
// per sender; of a long message each piece is acknowledged before the next one comes. Used by the
// rank's thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "exchange/fabric.h"

namespace wideload::runtime {

class MessageChannel {
 public:
  // How long to wait: as long as the group's deadline, or as long as all ranks live.
  enum class Patience { kDeadline, kWhileAlive };

  // What a fabric for `num_ranks` ranks needs.
  static int64_t SegmentBytes(int num_ranks);

  // fabric and group are of the same rank and outlive this object.
  MessageChannel(exchange::Fabric& fabric, comm::Communicator& group);

  // Sends the message; returns when its last piece is on the way. The message before it must have
  // been read: an answer to it, or a barrier after it, has come. Errors: comm::PeerLost when the
  // peer does not read the pieces of a long message within the deadline.
  void Send(int peer, std::span<const std::byte> message);
  // The next message of the peer, aligned to 16 bytes, valid until the next Receive from it.
  // `awaited`: what the peer owes, in words. Errors: comm::PeerLost; kCorrupt for a length that
  // cannot be.
  std::span<const std::byte> Receive(int peer, Patience patience, const char* awaited);

 private:
  struct Inbox;  // where things lie in a segment
  void Await(int peer, const exchange::Fabric::Message& message, Patience patience,
             const char* awaited);

  exchange::Fabric& fabric_;
  comm::Communicator& group_;
  int64_t piece_bytes_;
  std::vector<uint32_t> num_sent_;                // [num_ranks] pieces
  std::vector<uint32_t> num_received_;            // [num_ranks]
  std::vector<std::vector<std::byte>> messages_;  // [num_ranks] the last one received
};

}  // namespace wideload::runtime
