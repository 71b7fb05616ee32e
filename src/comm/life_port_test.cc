#include "comm/life_port.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

namespace wideload::comm {
namespace {

constexpr std::chrono::seconds kLimit{5};  // an answer of this machine comes at once

TEST(LifePort, TellsThatItsProcessLivesAndThatItDoesNot) {
  auto first = std::make_unique<LifePort>();
  const LifePort second;
  ASSERT_GT(first->card().num_addresses, 0u);
  std::vector<LifeWatch> watches;
  for (const LifePort* port : {static_cast<const LifePort*>(first.get()), &second}) {
    const std::optional<LifeWatch> watch = LifeWatch::Find(port->card());
    ASSERT_TRUE(watch);
    watches.push_back(*watch);
  }
  EXPECT_EQ(AskAll(watches, kLimit), (std::vector<Life>{Life::kAlive, Life::kAlive}));
  first.reset();
  EXPECT_EQ(AskAll(watches, kLimit), (std::vector<Life>{Life::kDead, Life::kAlive}));
}

TEST(LifePort, IsNotTakenForThatOfAnotherProcess) {
  const LifePort port;
  LifeCard other = port.card();
  other.token[1] ^= 1;
  EXPECT_FALSE(LifeWatch::Find(other));
  EXPECT_FALSE(LifeWatch::Find(LifeCard{}));
}

TEST(LifePort, DoesNotCallAProcessDeadForWantOfADescriptor) {
  const LifePort port;
  const std::optional<LifeWatch> watch = LifeWatch::Find(port.card());
  ASSERT_TRUE(watch);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const std::vector<Life> lives = AskAll(std::span(&*watch, 1), kLimit);
  ::setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_EQ(lives, std::vector<Life>{Life::kUnknown});
}

}  // namespace
}  // namespace wideload::comm
