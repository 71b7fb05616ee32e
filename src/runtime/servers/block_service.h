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
#include "runtime/cache_part.h"
#include "runtime/servers/block_request.h"
#include "runtime/servers/message_socket.h"

namespace wideload::runtime {

class BlockService {
 public:
  // What the rank has of its group's sequences, and its caches; spec and memory outlive the
  // service.
  struct Source {
    const model::ModelSpec* spec = nullptr;
    CachePart part;
    kv::CacheShape shape;  // of each micro-batch
    int32_t num_micro_batches = 1;
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
  CachePart part_;
  std::vector<kv::PagedCache> caches_;  // [micro-batches], views
  BlockLimits limits_;
  MessageListener listener_;
  std::mutex mutex_;  // guards readers_
  std::list<Reader> readers_;
  std::jthread acceptor_;
};

}  // namespace wideload::runtime
