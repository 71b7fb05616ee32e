// Messages of any length between two servers over one connection of TCP, which the kernel closes
// when either of them dies: so that who is gone is known at once, and nobody polls. IPv4.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
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
  // Send of one message that lies in pieces, and the receipt of one of exactly their length into
  // them. Of the latter: one thread at a time; `note_life` is called while it waits, with whether
  // something has come since. False once the peer is gone, says something of another length, or has
  // said nothing for `longest_silence`; then nothing more can be received.
  using Pieces = std::vector<std::span<std::byte>>;
  void SendPieces(const Pieces& pieces);
  bool ReceiveInto(const Pieces& pieces, std::chrono::milliseconds longest_silence,
                   const std::function<void(bool)>& note_life);
  // Whether nothing more can come or be sent.
  bool is_closed() const { return is_closed_; }
  // Any thread: ends Receive on both sides, after what has been sent.
  void Close();

 private:
  bool ReceiveAll(std::span<std::byte> bytes);
  bool SendAllOf(std::span<const std::byte> first, const Pieces& rest);

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
  // The same without a limit, and greeted with a first message, the token; null once Close was
  // called.
  std::unique_ptr<MessageSocket> AcceptAndGreet();
  // Any thread.
  void Close();

 private:
  Descriptor listener_;
  comm::LifeCard card_;
  std::atomic<bool> is_closed_{false};
};

// Connects to the listener with this card, which `whose` names for people. Errors: kRunFailed when
// it is not to be reached.
std::unique_ptr<MessageSocket> ConnectTo(const comm::LifeCard& card,
                                         std::string_view whose = "the generation server");
// The same where the other side calls AcceptAndGreet: another program at one of the addresses is
// not taken for it, and the card keeps the right address alone. Waits for each address at most
// `limit` to connect and for the greeting.
std::unique_ptr<MessageSocket> ConnectAndHear(comm::LifeCard& card, std::string_view whose,
                                              std::chrono::milliseconds limit);

}  // namespace wideload::runtime
