// Whether a process of another host lives, asked of that host's kernel: each process listens on a
// TCP port, which is open for as long as the process lives, whatever its threads do. IPv4.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "base/descriptor.h"

namespace wideload::comm {

// How others find the port of a process. Plain bytes: ranks send it to each other.
struct LifeCard {
  static constexpr size_t kMaxAddresses = 8;
  std::array<uint32_t, kMaxAddresses> addresses{};  // of this host, in the order of the network
  uint32_t num_addresses = 0;                       // 0: nobody can ask
  uint16_t port = 0;
  std::array<uint64_t, 2> token{};  // whoever answers says this; another program does not
};

// Those of this host, of networks before that of the machine itself.
void ListAddresses(LifeCard& card);

// This process's port; a thread of its own answers who asks. Where there are no sockets to be had
// its card has no addresses.
class LifePort {
 public:
  LifePort();
  ~LifePort();
  LifePort(const LifePort&) = delete;
  LifePort& operator=(const LifePort&) = delete;
  const LifeCard& card() const { return card_; }

 private:
  void Answer();

  LifeCard card_;
  Descriptor listener_;
  Descriptor stop_;  // eventfd
  std::jthread thread_;
};

// What a host's kernel says of a process, or that nobody answered.
enum class Life { kAlive, kDead, kUnknown };

// Another process's port, at the address where it has answered once.
class LifeWatch {
 public:
  // Tries the addresses one after the other, each for at most 0.3 s. Nothing when none answers.
  static std::optional<LifeWatch> Find(const LifeCard& card);

 private:
  friend std::vector<Life> AskAll(std::span<const LifeWatch> watches,
                                  std::chrono::milliseconds limit);
  LifeWatch(uint32_t address, uint16_t port) : address_(address), port_(port) {}

  uint32_t address_;
  uint16_t port_;
};

// Asks all at once, for at most `limit`. kDead: the host lives and has no such port any more.
// kUnknown: no answer, or no descriptor to ask with. Thread-safe. [watches.size()]
std::vector<Life> AskAll(std::span<const LifeWatch> watches, std::chrono::milliseconds limit);

}  // namespace wideload::comm
