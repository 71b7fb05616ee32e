#include "runtime/processes/message_channel.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "comm/wait_guard.h"

namespace wideload::runtime {
namespace {

constexpr int64_t kLine = 128;
constexpr uint64_t kMaxMessageBytes = uint64_t{1} << 36;

// All inboxes of a segment take 256 KiB or less, unless there are very many.
int64_t PieceBytes(int num_ranks) {
  constexpr int64_t kAll = 256 << 10;
  return std::clamp<int64_t>(kAll / num_ranks / kLine * kLine, 4 << 10, 32 << 10);
}

}  // namespace

// The inbox of messages from `sender`: a cell for their pieces, a cell in which `sender` says which
// of this rank's pieces it has read, a piece.
struct MessageChannel::Inbox {
  int64_t arrived;
  int64_t was_read;
  int64_t piece;

  static int64_t Bytes(int64_t piece_bytes) { return 2 * kLine + piece_bytes; }
  Inbox(int sender, int64_t piece_bytes)
      : arrived(sender * Bytes(piece_bytes)), was_read(arrived + kLine), piece(was_read + kLine) {}
};

int64_t MessageChannel::SegmentBytes(int num_ranks) {
  return num_ranks * Inbox::Bytes(PieceBytes(num_ranks));
}

MessageChannel::MessageChannel(exchange::Fabric& fabric, comm::Communicator& group)
    : fabric_(fabric),
      group_(group),
      piece_bytes_(PieceBytes(fabric.size())),
      num_sent_(static_cast<size_t>(fabric.size())),
      num_received_(static_cast<size_t>(fabric.size())),
      messages_(static_cast<size_t>(fabric.size())) {
  WIDELOAD_CHECK(fabric.segment_bytes() >= SegmentBytes(fabric.size()), "a segment of {} bytes",
                 fabric.segment_bytes());
}

// The first piece begins with the length of the message.
void MessageChannel::Send(int peer, std::span<const std::byte> message) {
  const Inbox own(peer, piece_bytes_);
  const Inbox theirs(fabric_.rank(), piece_bytes_);
  uint32_t& num_sent = num_sent_[static_cast<size_t>(peer)];
  std::byte* const window = fabric_.Window(peer, theirs.piece);
  const auto total = static_cast<uint64_t>(message.size());
  std::memcpy(window, &total, sizeof(total));
  size_t used = sizeof(total);  // of the piece
  while (true) {
    const size_t count = std::min(message.size(), static_cast<size_t>(piece_bytes_) - used);
    if (count > 0) std::memcpy(window + used, message.data(), count);
    fabric_.Signal(peer, {.cell = theirs.arrived,
                          .tag = ++num_sent,
                          .payload_offset = theirs.piece,
                          .payload_bytes = static_cast<int64_t>(used + count)});
    message = message.subspan(count);
    if (message.empty()) return;
    Await(peer, {.cell = own.was_read, .tag = num_sent}, Patience::kDeadline,
          "a sign that it has read a message");
    used = 0;
  }
}

std::span<const std::byte> MessageChannel::Receive(int peer, Patience patience,
                                                   const char* awaited) {
  const Inbox own(peer, piece_bytes_);
  const Inbox theirs(fabric_.rank(), piece_bytes_);
  uint32_t& num_received = num_received_[static_cast<size_t>(peer)];
  std::vector<std::byte>& message = messages_[static_cast<size_t>(peer)];
  uint64_t total = 0;
  size_t begin = sizeof(total);  // of the message in the piece
  for (size_t done = 0;; begin = 0) {
    Await(peer,
          {.cell = own.arrived,
           .tag = ++num_received,
           .payload_offset = own.piece,
           .payload_bytes = piece_bytes_},
          begin > 0 ? patience : Patience::kDeadline, awaited);
    const std::byte* const piece = fabric_.Local(own.piece);
    if (begin > 0) {
      std::memcpy(&total, piece, sizeof(total));
      if (total > kMaxMessageBytes)
        Throw(ErrorKind::kCorrupt, "a message of {} bytes from rank {}", total, peer);
      message.resize(static_cast<size_t>(total));
    }
    const size_t count = std::min(static_cast<size_t>(piece_bytes_) - begin, message.size() - done);
    if (count > 0) std::memcpy(message.data() + done, piece + begin, count);
    done += count;
    if (done == message.size()) return message;
    fabric_.Signal(peer, {.cell = theirs.was_read, .tag = num_received});
  }
}

void MessageChannel::Await(int peer, const exchange::Fabric::Message& message, Patience patience,
                           const char* awaited) {
  fabric_.Expect(peer, message);
  if (fabric_.Test(message.cell, message.tag)) return;
  comm::WaitGuard guard(group_, peer);
  const auto keep_waiting = [&] {
    return patience == Patience::kDeadline ? guard.KeepWaiting() : guard.AllLive();
  };
  if (!fabric_.Wait(message.cell, message.tag, keep_waiting)) guard.ThrowPeerLost(awaited);
}

}  // namespace wideload::runtime
