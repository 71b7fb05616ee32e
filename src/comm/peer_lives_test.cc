#include "comm/peer_lives.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <vector>

namespace wideload::comm {
namespace {

// Three ranks of this process that take each other for those of other hosts.
class FarRanks : public testing::Test {
 protected:
  FarRanks() {
    std::vector<PeerLives::Card> cards;
    for (int rank = 0; rank < 3; ++rank) {
      ranks_.push_back(std::make_unique<PeerLives>());
      cards.push_back(ranks_.back()->card());
      cards.back().host.text[0] = static_cast<char>('a' + rank);
    }
    for (int rank = 0; rank < 3; ++rank) ranks_[static_cast<size_t>(rank)]->Meet(rank, cards);
  }

  // Enough of them that a silent rank is asked.
  int LookAgainAndAgain() {
    int first_dead = -1;
    for (int i = 0; i < 4; ++i) first_dead = ranks_[0]->Look();
    return first_dead;
  }

  std::vector<std::unique_ptr<PeerLives>> ranks_;
};

TEST_F(FarRanks, LiveThoughTheySayNothing) {
  EXPECT_FALSE(ranks_[0]->IsHere(1));
  EXPECT_EQ(LookAgainAndAgain(), -1);
}

TEST_F(FarRanks, AreFoundDeadAndTheFirstStaysTheCause) {
  ranks_[2].reset();
  EXPECT_EQ(LookAgainAndAgain(), 2);
  ranks_[1].reset();
  EXPECT_EQ(LookAgainAndAgain(), 2);
  EXPECT_TRUE(ranks_[0]->HasEnded(1));
  EXPECT_TRUE(ranks_[0]->HasEnded(2));
}

TEST_F(FarRanks, AreNotAskedWhileTheyAreHeard) {
  ranks_[1].reset();
  for (int i = 0; i < 4; ++i) {
    ranks_[0]->Heard(1);
    EXPECT_EQ(ranks_[0]->Look(), -1);
  }
}

TEST(PeerLives, KnowsARankOfItsOwnHostAtOnce) {
  PeerLives lives;
  std::vector<PeerLives::Card> cards(2, lives.card());
  cards[1].process.start_ticks -= 1;  // an earlier process of that number
  lives.Meet(0, cards);
  EXPECT_TRUE(lives.IsHere(1));
  EXPECT_EQ(lives.Look(), 1);
}

TEST(PeerLives, SeesAProcessOfItsOwnHostEndInOneLook) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const ProcessStamp own = ThisProcess();
    if (::write(ends[1], &own, sizeof(own)) == ssize_t{sizeof(own)}) ::pause();
    ::_exit(0);
  }
  PeerLives lives;
  std::vector<PeerLives::Card> cards(3, lives.card());
  ASSERT_EQ(::read(ends[0], &cards[1].process, sizeof(ProcessStamp)),
            ssize_t{sizeof(ProcessStamp)});
  ::close(ends[0]);
  ::close(ends[1]);
  lives.Meet(0, cards);
  EXPECT_EQ(lives.LookHere(), -1);
  ::kill(child, SIGKILL);
  siginfo_t info{};
  ::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);  // it has ended
  EXPECT_EQ(lives.LookHere(), 1);
  EXPECT_EQ(lives.LookHere(), 1);
  ::waitpid(child, nullptr, 0);
}

}  // namespace
}  // namespace wideload::comm
