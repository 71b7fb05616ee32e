#include "comm/peer_lives.h"

#include <utility>
#include <vector>

namespace wideload::comm {
namespace {

constexpr std::chrono::milliseconds kAskTime{100};
constexpr int kSilentLooks = 2;

}  // namespace

PeerLives::Card PeerLives::card() const {
  return {.host = ThisHost(), .process = ThisProcess(), .port = own_.card()};
}

void PeerLives::Meet(int rank, std::span<const Card> cards) {
  rank_ = rank;
  const HostId here = cards[static_cast<size_t>(rank)].host;
  for (const Card& card : cards) {
    Peer& peer = peers_.emplace_back();
    peer.is_far = card.host != here;
    if (peer.is_far)
      peer.port = LifeWatch::Find(card.port);
    else
      peer.process = ProcessWatch(card.process);
    ends_.push_back({.fd = peer.process.descriptor(), .events = POLLIN, .revents = 0});
  }
  ends_[static_cast<size_t>(rank)].fd = -1;
}

int PeerLives::LookHere() {
  if (::poll(ends_.data(), ends_.size(), 0) <= 0) return FirstDead();  // it passes over -1
  for (size_t peer = 0; peer < ends_.size(); ++peer) {
    if (ends_[peer].revents == 0) continue;
    NoteDead(static_cast<int>(peer));
    ends_[peer] = {.fd = -1, .events = 0, .revents = 0};
  }
  return FirstDead();
}

bool PeerLives::HasEnded(int peer) {
  const Peer& p = peers_[static_cast<size_t>(peer)];
  if (!p.is_far && !p.is_dead && p.process.HasEnded()) NoteDead(peer);
  return p.is_dead;
}

int PeerLives::Look() {
  std::vector<LifeWatch> watches;
  std::vector<int> asked;
  for (int peer = 0; peer < std::ssize(peers_); ++peer) {
    Peer& p = peers_[static_cast<size_t>(peer)];
    if (peer == rank_ || HasEnded(peer) || !p.is_far) continue;
    const uint32_t heard = p.num_heard;
    p.num_silent = std::exchange(p.last_heard, heard) == heard ? p.num_silent + 1 : 0;
    if (p.num_silent < kSilentLooks || !p.port) continue;
    watches.push_back(*p.port);
    asked.push_back(peer);
  }
  const std::vector<Life> lives = AskAll(watches, kAskTime);
  for (size_t i = 0; i < asked.size(); ++i)
    if (lives[i] == Life::kDead) NoteDead(asked[i]);
  return FirstDead();
}

void PeerLives::NoteDead(int peer) {
  int none = -1;
  first_dead_.compare_exchange_strong(none, peer);
  peers_[static_cast<size_t>(peer)].is_dead = true;
}

}  // namespace wideload::comm
