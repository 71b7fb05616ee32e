// Reads blocks of one context rank's KV cache from its BlockService into a cache of this process.
// Used by one thread, the generation rank's.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "runtime/cached_prompt.h"
#include "runtime/servers/message_socket.h"

namespace wideload::runtime {

class BlockReader {
 public:
  // Connects to the service with this card, of a rank of a context server that `whose` names for
  // people. A rank that says nothing for `longest_silence` is given up. Errors: as ConnectAndHear.
  BlockReader(const comm::LifeCard& card, std::string whose,
              std::chrono::milliseconds longest_silence);

  // Which rank of the sequence's group it is that is asked, and of which of its micro-batches.
  struct Source {
    const CachedSequence& sequence;
    size_t rank = 0;
    int32_t micro_batch = 0;
  };
  // Asks for what CopyFrom(from.sequence, from.rank, to, first_block) would copy; connects again
  // where the connection has ended. Take follows, after which `to` may go.
  void Ask(const Source& from, const CachedPart& to, int64_t first_block);
  // Reads that. Where it fails some of the blocks may have been written. `note_life` as of
  // MessageSocket::ReceiveInto.
  FetchResult Take(const std::function<void(bool)>& note_life);

 private:
  void Reconnect();

  comm::LifeCard card_;
  std::string whose_;
  std::chrono::milliseconds longest_silence_;
  std::unique_ptr<MessageSocket> socket_;
  // After a connection that could not be made again none is tried for a while: who waits is the
  // whole engine.
  std::chrono::steady_clock::time_point not_before_{};
  MessageSocket::Pieces targets_;  // of what was asked for
  std::string failure_;            // likewise
};

}  // namespace wideload::runtime
