// Messages of any length between two servers over one connection of TCP, which the kernel closes
// when either of them dies: so that who is gone is known at once, and nobody polls. IPv4.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/descriptor.h"
#include "comm/life_port.h"

namespace wideload::runtime {

class MessageSocket {
 public:
  // Takes a connection.
  explicit MessageSocket(Descriptor socket);

  // Any thread. A peer that is gone, or has not read for seconds, gets nothing, and Receive says
  // so.
  void Send(std::span<const std::byte> message);
  // The next message, aligned to 16 bytes; nothing once the peer is gone or Close was called. One
  // thread at a time.
  std::optional<std::vector<std::byte>> Receive();
  // Any thread: ends Receive on both sides, after what has been sent.
  void Close();

 private:
  bool ReceiveAll(std::span<std::byte> bytes);

  Descriptor socket_;
  std::mutex send_mutex_;
  std::atomic<bool> is_closed_{false};
};

// Where servers connect to another one.
class MessageListener {
 public:
  // `is_local`: for processes of this host alone. Errors: kIo.
  explicit MessageListener(bool is_local);
  // How they find it, and what they say there so that nobody else is taken for them.
  const comm::LifeCard& card() const { return card_; }
  // The next server's connection. Errors: kRunFailed when none has come within `limit`.
  std::unique_ptr<MessageSocket> Accept(std::chrono::milliseconds limit);

 private:
  Descriptor listener_;
  comm::LifeCard card_;
};

// Connects to the listener with this card. Errors: kRunFailed when it is not to be reached.
std::unique_ptr<MessageSocket> ConnectTo(const comm::LifeCard& card);

}  // namespace wideload::runtime
