#include "comm/life_port.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <random>

#include "base/thread_pool.h"

namespace wideload::comm {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kFindTime{300};
constexpr milliseconds kRetry{100};  // after a failed accept: descriptors may be had later
constexpr int kBacklog = 256;

sockaddr_in AddressOf(uint32_t address, uint16_t port) {
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_addr.s_addr = address;
  where.sin_port = port;
  return where;
}

// A connection that has begun, or none.
Descriptor Connect(uint32_t address, uint16_t port, Life& life) {
  Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  life = Life::kUnknown;
  if (!socket.is_open()) return {};
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  const sockaddr_in where = AddressOf(address, port);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&where), sizeof(where)) == 0)
    life = Life::kAlive;
  else if (errno == ECONNREFUSED)
    life = Life::kDead;
  else if (errno == EINPROGRESS)
    return socket;
  return life == Life::kAlive ? std::move(socket) : Descriptor();
}

Life ResultOf(int fd) {
  int error = 0;
  socklen_t size = sizeof(error);
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return Life::kUnknown;
  return error == 0 ? Life::kAlive : error == ECONNREFUSED ? Life::kDead : Life::kUnknown;
}

int MillisecondsTo(steady_clock::time_point end) {
  const auto left = std::chrono::ceil<milliseconds>(end - steady_clock::now()).count();
  return static_cast<int>(std::max<int64_t>(left, 0));
}

bool IsReady(int fd, short events, steady_clock::time_point end) {
  pollfd entry{.fd = fd, .events = events, .revents = 0};
  int count = -1;
  do {
    count = ::poll(&entry, 1, MillisecondsTo(end));
  } while (count < 0 && errno == EINTR);
  return count == 1;
}

bool Answers(const LifeCard& card, uint32_t address) {
  const auto end = steady_clock::now() + kFindTime;
  Life life = Life::kUnknown;
  const Descriptor socket = Connect(address, card.port, life);
  if (!socket.is_open() || !IsReady(socket.get(), POLLOUT, end)) return false;
  std::array<uint64_t, 2> said{};
  return ResultOf(socket.get()) == Life::kAlive && IsReady(socket.get(), POLLIN, end) &&
         ::recv(socket.get(), said.data(), sizeof(said), 0) == ssize_t{sizeof(said)} &&
         said == card.token;
}

}  // namespace

void ListAddresses(LifeCard& card) {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return;
  for (const bool is_loopback : {false, true})
    for (const ifaddrs* i = list; i != nullptr; i = i->ifa_next) {
      if (i->ifa_addr == nullptr || i->ifa_addr->sa_family != AF_INET ||
          (i->ifa_flags & IFF_UP) == 0 || ((i->ifa_flags & IFF_LOOPBACK) != 0) != is_loopback ||
          card.num_addresses == LifeCard::kMaxAddresses)
        continue;
      card.addresses[card.num_addresses++] =
          reinterpret_cast<const sockaddr_in*>(i->ifa_addr)->sin_addr.s_addr;
    }
  ::freeifaddrs(list);
}

LifePort::LifePort() {
  Descriptor listener(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  Descriptor stop(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  sockaddr_in where = AddressOf(htonl(INADDR_ANY), 0);
  socklen_t size = sizeof(where);
  auto* const any = reinterpret_cast<sockaddr*>(&where);
  if (!listener.is_open() || !stop.is_open() || ::bind(listener.get(), any, size) != 0 ||
      ::listen(listener.get(), kBacklog) != 0 || ::getsockname(listener.get(), any, &size) != 0)
    return;
  listener_ = std::move(listener);
  stop_ = std::move(stop);
  thread_ = StartThread("life", [this] { Answer(); });
  std::random_device random;
  for (uint64_t& word : card_.token) word = uint64_t{random()} << 32 | random();
  card_.port = where.sin_port;
  ListAddresses(card_);
}

LifePort::~LifePort() {
  if (stop_.is_open()) ::eventfd_write(stop_.get(), 1);
}

void LifePort::Answer() {
  while (true) {
    std::array<pollfd, 2> entries{pollfd{.fd = listener_.get(), .events = POLLIN, .revents = 0},
                                  pollfd{.fd = stop_.get(), .events = POLLIN, .revents = 0}};
    ::poll(entries.data(), entries.size(), -1);
    if (entries[1].revents != 0) return;
    const Descriptor asks(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (asks.is_open())
      ::send(asks.get(), card_.token.data(), sizeof(card_.token), MSG_NOSIGNAL | MSG_DONTWAIT);
    else if (errno != EAGAIN)
      ::poll(&entries[1], 1, static_cast<int>(kRetry.count()));
  }
}

std::optional<LifeWatch> LifeWatch::Find(const LifeCard& card) {
  for (uint32_t i = 0; i < std::min<size_t>(card.num_addresses, LifeCard::kMaxAddresses); ++i)
    if (Answers(card, card.addresses[i])) return LifeWatch(card.addresses[i], card.port);
  return std::nullopt;
}

std::vector<Life> AskAll(std::span<const LifeWatch> watches, milliseconds limit) {
  const auto end = steady_clock::now() + limit;
  std::vector<Life> lives(watches.size(), Life::kUnknown);
  std::vector<Descriptor> sockets(watches.size());
  std::vector<pollfd> open;
  for (size_t i = 0; i < watches.size(); ++i) {
    sockets[i] = Connect(watches[i].address_, watches[i].port_, lives[i]);
    open.push_back({.fd = lives[i] == Life::kUnknown ? sockets[i].get() : -1,
                    .events = POLLOUT,
                    .revents = 0});  // poll passes over -1
  }
  const auto is_open = [](const pollfd& entry) { return entry.fd >= 0; };
  while (std::any_of(open.begin(), open.end(), is_open)) {
    const int count = ::poll(open.data(), open.size(), MillisecondsTo(end));
    if (count == 0 || (count < 0 && errno != EINTR)) break;
    for (size_t i = 0; i < open.size() && count > 0; ++i)
      if (open[i].fd >= 0 && open[i].revents != 0) {
        lives[i] = ResultOf(open[i].fd);
        open[i].fd = -1;
      }
  }
  return lives;
}

}  // namespace wideload::comm
