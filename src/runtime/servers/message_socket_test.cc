#include "runtime/servers/message_socket.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace wideload::runtime
