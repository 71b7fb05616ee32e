#include "runtime/servers/block_service.h"

#include "base/error.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "runtime/cached_prompt.h"
#include "runtime/servers/block_request.h"

namespace wideload::runtime {
namespace {

constexpr size_t kMostReaders = 1024;

}  // namespace

BlockService::BlockService(const Source& source, bool is_local)
    : spec_(source.spec),
      rank_(source.rank),
      cache_(source.shape, source.memory),
      listener_(is_local) {
  for (const kv::BlockClass& of_class : source.shape.classes)
    num_blocks_.push_back(of_class.num_blocks);
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
  const BlockRequest request = ReadBlockRequest(bytes, num_blocks_);
  model::CheckTensorParallel(*spec_, request.reader.size);
  MessageSocket::Pieces all;
  for (size_t c = 0; c < request.blocks.size(); ++c) {
    const auto block_class = static_cast<int64_t>(c);
    const std::vector<BlockPiece> pieces = PiecesOf(
        *spec_, cache_, block_class, {.from = rank_, .to = request.reader}, LinkEnd::kFrom);
    for (const int32_t block : request.blocks[c])
      for (const BlockPiece& piece : pieces)
        all.push_back(
            cache_.Block(block_class, block)
                .subspan(static_cast<size_t>(piece.offset), static_cast<size_t>(piece.num_bytes)));
  }
  return all;
}

}  // namespace wideload::runtime
