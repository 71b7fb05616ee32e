// Which moves PlanSearch looks at: most take load out of a set of ranks that binds a scenario.
#include <algorithm>

#include "eplb/search/plan_search.h"

namespace wideload::eplb {
namespace {

// Smaller gains are rounding of floats.
constexpr double kMinShare = 1e-5;
// How often a random slot is drawn before a proposal is given up.
constexpr int kDrawsOfProposal = 16;

}  // namespace

int32_t PlanSearch::RandomSlot(const uint64_t* mask, bool inside) {
  for (int draw = 0; draw < kDrawsOfProposal; ++draw) {
    const int32_t slot =
        live_slots_[Index(random_.Below(static_cast<int32_t>(live_slots_.size())))];
    if (mask == nullptr || Bit(mask, RankOf(slot)) == inside) return slot;
  }
  return -1;
}

// A scenario drawn by its part in the objective; -1 when there is nothing left to gain.
int32_t PlanSearch::RandomScenario() {
  if (share_.back() <= kMinShare) return -1;
  const double drawn = random_.Uniform() * share_.back();
  const auto found = std::upper_bound(share_.begin(), share_.end(), drawn);
  return std::min(static_cast<int32_t>(found - share_.begin()), lanes_.num_scenarios() - 1);
}

bool PlanSearch::MakeSwap(int32_t a, int32_t b, SlotChange& move) const {
  const int32_t expert_a = ExpertAt(a);
  const int32_t expert_b = ExpertAt(b);
  if (Holds(expert_a, RankOf(b)) || Holds(expert_b, RankOf(a))) return false;
  move = {2, {a, b}, {expert_b, expert_a}, {expert_a, expert_b}};
  return KeepsNodeRule(move);
}

bool PlanSearch::MakeReplace(int32_t slot, int32_t expert, SlotChange& move) const {
  const int32_t old_expert = ExpertAt(slot);
  if (Holds(expert, RankOf(slot))) return false;
  if (NumHosts(old_expert) < 2 && !HoldsElsewhere(old_expert, slot)) return false;
  move = {1, {slot, -1}, {expert, -1}, {old_expert, -1}};
  return KeepsNodeRule(move);
}

// Whether all ranks of `expert` but that of `slot` are in the set.
bool PlanSearch::OthersInside(int32_t expert, int32_t slot, const uint64_t* cut) const {
  uint64_t outside = 0;
  for (size_t w = 0; w < words_; ++w) {
    uint64_t hosts = Hosts(expert)[w];
    if (slot >= 0 && Index(RankOf(slot)) / 64 == w) hosts &= ~(uint64_t{1} << (RankOf(slot) % 64));
    outside |= hosts & ~cut[w];
  }
  return outside == 0;
}

// Takes load out of the set of ranks that binds some scenario.
bool PlanSearch::ProposeAcrossCut(SlotChange& move) {
  const int32_t scenario = RandomScenario();
  if (scenario < 0) return false;
  const uint64_t* cut = CutOf(scenario);
  const int32_t inside = RandomSlot(cut, true);
  const int32_t outside = RandomSlot(cut, false);
  if (inside < 0 || outside < 0) return false;
  const int32_t leaving = ExpertAt(inside);
  const int32_t entering = ExpertAt(outside);
  if (!OthersInside(leaving, -1, cut)) return false;
  if (OthersInside(entering, outside, cut) &&
      lanes_.Loads(entering)[scenario] >= lanes_.Loads(leaving)[scenario])
    return false;
  if (NumHosts(entering) > 1 && random_.Below(2) == 0) return MakeReplace(outside, leaving, move);
  return MakeSwap(inside, outside, move);
}

bool PlanSearch::ProposeAnywhere(SlotChange& move) {
  const int32_t a = RandomSlot(nullptr, true);
  const int32_t b = RandomSlot(nullptr, true);
  if (NumHosts(ExpertAt(a)) > 1 && random_.Below(2) == 0) return MakeReplace(a, ExpertAt(b), move);
  return MakeSwap(a, b, move);
}

bool PlanSearch::Propose(SlotChange& move) {
  return random_.Below(4) != 0 ? ProposeAcrossCut(move) : ProposeAnywhere(move);
}

}  // namespace wideload::eplb
