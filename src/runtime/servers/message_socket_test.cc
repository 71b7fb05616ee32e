#include "runtime/servers/message_socket.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <array>
#include <thread>

#include "base/error.h"

namespace wideload::runtime {
namespace {

std::vector<std::byte> Bytes(size_t size, int seed) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i)
    bytes[i] = static_cast<std::byte>(i * 7 + static_cast<size_t>(seed));
  return bytes;
}

TEST(MessageSocket, CarriesMessagesOfAnyLengthBothWays) {
  MessageListener listener(true);
  const auto there = ConnectTo(listener.card());
  const auto here = listener.Accept(std::chrono::seconds(10));
  const size_t sizes[] = {0, 1, 1000, 5'000'000};
  std::jthread sender([&] {
    for (const size_t size : sizes) there->Send(Bytes(size, 1));
  });
  for (const size_t size : sizes) EXPECT_EQ(here->Receive(), Bytes(size, 1));
  here->Send(Bytes(3, 2));
  EXPECT_EQ(there->Receive(), Bytes(3, 2));
}

TEST(MessageSocket, SaysThatTheOtherSideIsGoneAfterWhatItSent) {
  MessageListener listener(false);
  auto there = ConnectTo(listener.card());
  const auto here = listener.Accept(std::chrono::seconds(10));
  there->Send(Bytes(9, 3));
  there.reset();
  EXPECT_EQ(here->Receive(), Bytes(9, 3));
  EXPECT_EQ(here->Receive(), std::nullopt);
  here->Send(Bytes(9, 3));  // gets lost
}

TEST(MessageSocket, TakesNobodyWhoDoesNotKnowTheToken) {
  MessageListener listener(true);
  comm::LifeCard stranger = listener.card();
  ++stranger.token[0];
  const auto wrong = ConnectTo(stranger);
  EXPECT_THROW(listener.Accept(std::chrono::milliseconds(50)), Error);
  const auto right = ConnectTo(listener.card());
  EXPECT_NE(listener.Accept(std::chrono::seconds(10)), nullptr);
}

int64_t MostBytesOfMemory() {
  rusage usage{};
  EXPECT_EQ(::getrusage(RUSAGE_SELF, &usage), 0);
  return int64_t{usage.ru_maxrss} * 1024;
}

TEST(MessageSocket, GivesAMessageNoMoreMemoryThanItsBytesNeedOnceTheyAreThere) {
  constexpr uint64_t kSaid = uint64_t{1} << 30;
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()), 0);
  MessageSocket here{Descriptor(ends[0])};
  Descriptor there(ends[1]);
  const std::array<uint64_t, 2> head{kSaid, 0};  // 8 bytes of it come, no others
  const int64_t before = MostBytesOfMemory();
  ASSERT_EQ(::send(there.get(), head.data(), sizeof(head), 0), ssize_t{sizeof(head)});
  there = Descriptor();
  EXPECT_EQ(here.Receive(), std::nullopt);
  EXPECT_LT(MostBytesOfMemory() - before, static_cast<int64_t>(kSaid / 8));
}

}  // namespace
}  // namespace wideload::runtime
