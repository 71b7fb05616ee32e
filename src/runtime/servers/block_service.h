// Sends blocks of a context rank's KV cache to generation ranks that cannot map it, as they ask for
// them: on threads of its own, one for each of them, so that neither the rank nor another reader
// waits for one that does not read. Whoever asks has a lease of the blocks: nobody writes them.
#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <thread>

#include "kv/paged_cache.h"
#include "model/spec.h"
#include "runtime/servers/message_socket.h"

namespace wideload::runtime {

class BlockService {
 public:
  // The rank's place in its group, and its cache; spec and memory outlive the service.
  struct Source {
    const model::ModelSpec* spec = nullptr;
    model::TensorRank rank;
    kv::CacheShape shape;
    std::span<std::byte> memory;
  };
  // Listens from now on; `is_local`: for processes of this host alone. Errors: kIo.
  BlockService(const Source& source, bool is_local);
  // Ends all connections.
  ~BlockService();
  BlockService(const BlockService&) = delete;
  BlockService& operator=(const BlockService&) = delete;

  // How readers find it.
  const comm::LifeCard& card() const { return listener_.card(); }

 private:
  struct Reader {
    std::unique_ptr<MessageSocket> socket;
    std::atomic<bool> has_ended{false};
    std::jthread thread;
  };
  void Accept();
  void Serve(Reader& reader);
  MessageSocket::Pieces PiecesAskedFor(std::span<const std::byte> request) const;

  const model::ModelSpec* spec_;
  model::TensorRank rank_;
  kv::PagedCache cache_;             // a view
  std::vector<int64_t> num_blocks_;  // [block classes]
  MessageListener listener_;
  std::mutex mutex_;  // guards readers_
  std::list<Reader> readers_;
  std::jthread acceptor_;
};

}  // namespace wideload::runtime
