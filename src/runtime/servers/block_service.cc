#include "runtime/servers/block_service.h"

#include "base/error.h"
#include "base/log.h"
#include "base/thread_pool.h"

namespace wideload::runtime {
namespace {

constexpr size_t kMostReaders = 1024;

}  // namespace

BlockService::BlockService(const Source& source, bool is_local)
    : spec_(source.spec),
      part_(source.part),
      caches_(CachesIn(source.memory, source.shape, source.num_micro_batches)),
      limits_{.num_layers = source.spec->num_layers(),
              .num_micro_batches = source.num_micro_batches,
              .num_blocks = {}},
      listener_(is_local) {
  for (const kv::BlockClass& of_class : source.shape.classes)
    limits_.num_blocks.push_back(of_class.num_blocks);
  acceptor_ = StartThread("block readers", [this] { Accept(); });
}

BlockService::~BlockService() {
  listener_.Close();
  acceptor_.join();
  for (Reader& reader : readers_) {
    reader.socket->Close();
    reader.thread.join();
  }
}

void BlockService::Accept() {
  while (std::unique_ptr<MessageSocket> socket = listener_.AcceptAndGreet()) {
    const std::lock_guard lock(mutex_);
    readers_.remove_if([](const Reader& reader) { return reader.has_ended.load(); });
    if (readers_.size() == kMostReaders) continue;
    Reader& reader = readers_.emplace_back();
    reader.socket = std::move(socket);
    reader.thread = StartThread("block reader", [this, &reader] { Serve(reader); });
  }
}

void BlockService::Serve(Reader& reader) {
  try {
    while (const auto request = reader.socket->Receive())
      reader.socket->SendPieces(PiecesAskedFor(*request));
  } catch (const std::exception& failure) {
    LogWarn("a request for blocks of the KV cache is not understood: {}", failure.what());
  }
  reader.socket->Close();
  reader.has_ended = true;
}

MessageSocket::Pieces BlockService::PiecesAskedFor(std::span<const std::byte> bytes) const {
  const BlockRequest request = ReadBlockRequest(bytes, limits_);
  model::CheckTensorParallel(*spec_, request.reader.heads.size);
  const kv::PagedCache& cache = caches_[static_cast<size_t>(request.micro_batch)];
  MessageSocket::Pieces all;
  for (size_t c = 0; c < request.blocks.size(); ++c) {
    const auto block_class = static_cast<int64_t>(c);
    const std::vector<BlockPiece> pieces =
        PiecesOf(*spec_, cache, block_class, {.from = part_, .to = request.reader}, LinkEnd::kFrom);
    for (const int32_t block : request.blocks[c])
      for (const BlockPiece& piece : pieces)
        all.push_back(
            cache.Block(block_class, block)
                .subspan(static_cast<size_t>(piece.offset), static_cast<size_t>(piece.num_bytes)));
  }
  return all;
}

}  // namespace wideload::runtime
