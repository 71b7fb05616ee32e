#include "runtime/servers/message_socket.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <random>
#include <thread>

#include "base/error.h"

namespace wideload::runtime {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr int kServerBacklog = 256;
constexpr milliseconds kConnectTime{3000};
constexpr milliseconds kTokenTime{2000};
constexpr milliseconds kRefusedTime{100};  // until the next try where there are no descriptors
// A peer that does not read for so long is lost.
constexpr timeval kSendTime{.tv_sec = 10, .tv_usec = 0};
// Longer than any prompt with its log probabilities.
constexpr uint64_t kLongestMessage = uint64_t{1} << 32;
// What is given to a message before its bytes have come: no more than this, or than it has by then.
constexpr size_t kFirstPart = size_t{1} << 20;

constexpr size_t kMostPieces = 1024;         // that the kernel takes at once
constexpr milliseconds kSliceOfSilence{50};  // between signs of life of who waits

void SetOption(int fd, int level, int name, int value) {
  ::setsockopt(fd, level, name, &value, sizeof(value));
}

// A host that is down says nothing: the kernel asks it after 2 s of silence, and gives up after 5.
void Prepare(int fd) {
  SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  SetOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, 2);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &kSendTime, sizeof(kSendTime));
}

sockaddr_in AddressAt(uint32_t address, uint16_t port) {
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_addr.s_addr = address;
  where.sin_port = port;
  return where;
}

bool WaitUntilReady(int fd, short events, milliseconds limit) {
  pollfd entry{.fd = fd, .events = events, .revents = 0};
  const auto end = steady_clock::now() + limit;
  int count = -1;
  do {
    const auto left = std::chrono::ceil<milliseconds>(end - steady_clock::now()).count();
    count = ::poll(&entry, 1, static_cast<int>(std::max<int64_t>(left, 0)));
  } while (count < 0 && errno == EINTR);
  return count == 1;
}

// As many bytes as `bytes` has, by a call like recv.
template <class Call>
bool MoveAll(Call call, size_t num_bytes) {
  size_t done = 0;
  while (done < num_bytes) {
    const ssize_t count = call(done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    done += static_cast<size_t>(count);
  }
  return true;
}

bool SendAll(int fd, std::span<const std::byte> bytes) {
  return MoveAll(
      [&](size_t done) {
        return ::send(fd, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
      },
      bytes.size());
}

// All of them within `limit`.
bool ReceiveWithin(int fd, std::span<std::byte> bytes, milliseconds limit) {
  const auto end = steady_clock::now() + limit;
  return MoveAll(
      [&](size_t done) -> ssize_t {
        if (!WaitUntilReady(fd, POLLIN, std::chrono::ceil<milliseconds>(end - steady_clock::now())))
          return 0;
        return ::recv(fd, bytes.data() + done, bytes.size() - done, 0);
      },
      bytes.size());
}

bool SaysToken(int fd, const comm::LifeCard& card) {
  auto said = card.token;
  said.fill(0);
  return ReceiveWithin(fd, std::as_writable_bytes(std::span(said)), kTokenTime) &&
         said == card.token;
}

// All that lies in the pieces, by a call like sendmsg.
template <class Call>
bool MovePieces(Call call, std::span<iovec> pieces) {
  while (!pieces.empty()) {
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = std::min(pieces.size(), kMostPieces);
    const ssize_t count = call(message);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    auto left = static_cast<size_t>(count);
    while (!pieces.empty() && left >= pieces.front().iov_len) {
      left -= pieces.front().iov_len;
      pieces = pieces.subspan(1);
    }
    if (left == 0) continue;
    pieces.front().iov_base = static_cast<std::byte*>(pieces.front().iov_base) + left;
    pieces.front().iov_len -= left;
  }
  return true;
}

std::vector<iovec> VectorsOf(const MessageSocket::Pieces& pieces) {
  std::vector<iovec> vectors;
  for (const std::span<std::byte> piece : pieces)
    if (!piece.empty()) vectors.push_back({.iov_base = piece.data(), .iov_len = piece.size()});
  return vectors;
}

uint64_t SizeOf(const MessageSocket::Pieces& pieces) {
  uint64_t size = 0;
  for (const std::span<std::byte> piece : pieces) size += piece.size();
  return size;
}

// Nothing when nobody answers.
Descriptor ConnectAt(uint32_t address, uint16_t port, milliseconds time) {
  Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket.is_open()) return {};
  // SO_SNDTIMEO bounds a connect, too.
  const timeval limit{.tv_sec = time.count() / 1000, .tv_usec = time.count() % 1000 * 1000};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  const sockaddr_in where = AddressAt(address, port);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&where), sizeof(where)) != 0)
    return {};
  return socket;
}

}  // namespace

MessageSocket::MessageSocket(Descriptor socket) : socket_(std::move(socket)) {
  Prepare(socket_.get());
}

void MessageSocket::Send(std::span<const std::byte> message) {
  const std::lock_guard lock(send_mutex_);
  if (is_closed_) return;
  const auto size = static_cast<uint64_t>(message.size());
  if (!SendAll(socket_.get(), std::as_bytes(std::span(&size, 1))) ||
      !SendAll(socket_.get(), message))
    Close();
}

bool MessageSocket::ReceiveAll(std::span<std::byte> bytes) {
  return MoveAll(
      [&](size_t done) {
        return ::recv(socket_.get(), bytes.data() + done, bytes.size() - done, 0);
      },
      bytes.size());
}

std::optional<std::vector<std::byte>> MessageSocket::Receive() {
  uint64_t size = 0;
  if (!ReceiveAll(std::as_writable_bytes(std::span(&size, 1))) || size > kLongestMessage)
    return std::nullopt;
  std::vector<std::byte> message;
  while (message.size() < size) {
    const size_t done = message.size();
    message.resize(done + std::min(static_cast<size_t>(size) - done, std::max(done, kFirstPart)));
    if (!ReceiveAll(std::span(message).subspan(done))) return std::nullopt;
  }
  return message;
}

void MessageSocket::SendPieces(const Pieces& pieces) {
  const std::lock_guard lock(send_mutex_);
  if (is_closed_) return;
  const uint64_t size = SizeOf(pieces);
  std::vector<iovec> vectors = VectorsOf(pieces);
  const auto send = [&](const msghdr& message) {
    return ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
  };
  if (!SendAll(socket_.get(), std::as_bytes(std::span(&size, 1))) || !MovePieces(send, vectors))
    Close();
}

bool MessageSocket::ReceiveInto(const Pieces& pieces, milliseconds longest_silence,
                                const std::function<void(bool)>& note_life) {
  const auto await = [&] {
    for (const auto end = steady_clock::now() + longest_silence; steady_clock::now() < end;) {
      const bool has_come = WaitUntilReady(socket_.get(), POLLIN, kSliceOfSilence);
      note_life(has_come);
      if (has_come) return true;
    }
    return false;
  };
  const auto receive = [&](msghdr& message) {
    return await() ? ::recvmsg(socket_.get(), &message, 0) : 0;
  };
  uint64_t size = 0;
  iovec head{.iov_base = &size, .iov_len = sizeof(size)};
  std::vector<iovec> vectors = VectorsOf(pieces);
  if (!is_closed_ && MovePieces(receive, std::span(&head, 1)) && size == SizeOf(pieces) &&
      MovePieces(receive, vectors))
    return true;
  Close();
  return false;
}

void MessageSocket::Close() {
  is_closed_ = true;
  ::shutdown(socket_.get(), SHUT_RDWR);
}

MessageListener::MessageListener(bool is_local)
    : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in where = AddressAt(htonl(is_local ? INADDR_LOOPBACK : INADDR_ANY), 0);
  socklen_t size = sizeof(where);
  auto* const any = reinterpret_cast<sockaddr*>(&where);
  if (!listener_.is_open() || ::bind(listener_.get(), any, size) != 0 ||
      ::listen(listener_.get(), kServerBacklog) != 0 ||
      ::getsockname(listener_.get(), any, &size) != 0)
    Throw(ErrorKind::kIo, "no port of TCP for other servers: {}", std::strerror(errno));
  card_.port = where.sin_port;
  if (is_local) {
    card_.addresses[card_.num_addresses++] = htonl(INADDR_LOOPBACK);
  } else {
    comm::ListAddresses(card_);
  }
  std::random_device random;
  for (uint64_t& word : card_.token) word = uint64_t{random()} << 32 | random();
}

std::unique_ptr<MessageSocket> MessageListener::Accept(milliseconds limit) {
  const auto end = steady_clock::now() + limit;
  while (true) {
    const auto left = std::chrono::ceil<milliseconds>(end - steady_clock::now());
    if (left.count() <= 0 || !WaitUntilReady(listener_.get(), POLLIN, left))
      Throw(ErrorKind::kRunFailed, "a server has not connected within {} ms", limit.count());
    Descriptor socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (socket.is_open() && SaysToken(socket.get(), card_))
      return std::make_unique<MessageSocket>(std::move(socket));
  }
}

void MessageListener::Close() {
  is_closed_ = true;
  ::shutdown(listener_.get(), SHUT_RDWR);
}

std::unique_ptr<MessageSocket> MessageListener::AcceptAndGreet() {
  while (!is_closed_) {
    Descriptor socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!socket.is_open() && errno != EINTR && !is_closed_)
      std::this_thread::sleep_for(kRefusedTime);
    if (!socket.is_open() || !SaysToken(socket.get(), card_)) continue;
    auto accepted = std::make_unique<MessageSocket>(std::move(socket));
    accepted->Send(std::as_bytes(std::span(card_.token)));
    return accepted;
  }
  return nullptr;
}

namespace {

// To the first of the addresses where somebody `is_right`.
template <class IsRight>
std::unique_ptr<MessageSocket> ConnectToFirst(const comm::LifeCard& card, std::string_view whose,
                                              milliseconds limit, IsRight is_right) {
  for (uint32_t i = 0; i < card.num_addresses; ++i) {
    Descriptor socket = ConnectAt(card.addresses[i], card.port, limit);
    if (!socket.is_open() || !SendAll(socket.get(), std::as_bytes(std::span(card.token)))) continue;
    if (is_right(socket.get(), card.addresses[i]))
      return std::make_unique<MessageSocket>(std::move(socket));
  }
  Throw(ErrorKind::kRunFailed, "{} is not to be reached at port {} of any of its {} addresses",
        whose, ntohs(card.port), card.num_addresses);
}

}  // namespace

std::unique_ptr<MessageSocket> ConnectTo(const comm::LifeCard& card, std::string_view whose) {
  return ConnectToFirst(card, whose, kConnectTime, [](int, uint32_t) { return true; });
}

std::unique_ptr<MessageSocket> ConnectAndHear(comm::LifeCard& card, std::string_view whose,
                                              milliseconds limit) {
  return ConnectToFirst(card, whose, limit, [&](int fd, uint32_t address) {
    struct {
      uint64_t size = 0;
      std::array<uint64_t, 2> token{};
    } greeting;
    static_assert(sizeof(greeting) == sizeof(uint64_t) + sizeof(card.token));
    if (!ReceiveWithin(fd, std::as_writable_bytes(std::span(&greeting, 1)), limit) ||
        greeting.size != sizeof(card.token) || greeting.token != card.token)
      return false;
    card.addresses[0] = address;
    card.num_addresses = 1;
    return true;
  });
}

}  // namespace wideload::runtime
