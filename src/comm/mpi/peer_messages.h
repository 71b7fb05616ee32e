// Messages of a rank to single peers, beside its Communicator: nothing here waits. Needs MPI; no
// header of it. One per rank, used by that rank's thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/thread_pool.h"
#include "comm/communicator.h"

namespace wideload::comm {

class PeerMessages {
 public:
  // Collective over `group`, which outlives this object. Errors: kUnsupported when the group is not
  // one of MpiSession.
  explicit PeerMessages(Communicator& group);
  // As Close; what is under way after that is left to MPI.
  ~PeerMessages();

  // Tags are 0 to max_tag().
  int max_tag() const;

  // `bytes` must stay as they are until the peer has received them. At most 2^31 - 1 of them.
  // A peer that is gone gets nothing, without an error.
  void Send(int peer, int tag, std::span<const std::byte> bytes);

  // The next message of `peer` with `tag` goes to `place`, which must hold it: receives of one peer
  // and tag are filled in the order of these calls. `id` comes back with it.
  void Receive(int peer, int tag, std::span<std::byte> place, int64_t id);

  // Lets MPI get on with all of it, and calls arrived(id) for each message that is complete.
  void Progress(FunctionRef<void(int64_t)> arrived);

  // Ends open receives, after the sends have left. False when the group has lost a peer or a send
  // does not end within the group's deadline: then the memory of both must stay for good.
  bool Close();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace wideload::comm
