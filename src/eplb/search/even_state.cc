#include "eplb/search/even_state.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace wideload::eplb {
namespace {

// Sharpnesses looked at by TuneSharpness.
constexpr double kLeastSharpness = 2;
constexpr double kMostSharpness = 300;
constexpr double kSharpnessStep = 1.25;
// Sums of floats that changed so often are made anew.
constexpr int32_t kMovesPerSum = 4096;

}  // namespace

EvenState::EvenState(const EvenModel& model, const Placement& start,
                     std::span<const double> rank_speed)
    : model_(model),
      kernels_(BestEvenKernels()),
      placement_(start),
      num_ranks_(start.num_ranks),
      num_blocks_((model.num_batches + kLanes - 1) / kLanes),
      slots_of_(Index(model.num_experts)),
      held_(Index(model.num_experts) * Index(start.num_ranks)),
      weights_(Index(num_blocks_ * kLanes)),
      sums_(weights_.size()),
      variance_(Index(num_ranks_)),
      offsets_(Index(num_ranks_)),
      touched_(Index(num_ranks_)),
      touch_of_(Index(num_ranks_), -1),
      new_variance_(Index(num_ranks_)),
      new_offsets_(Index(num_ranks_)) {
  for (std::vector<float>& factors : factors_) factors.resize(Index(num_ranks_));
  for (std::vector<float>* lanes : {&loads_, &exponentials_, &new_loads_, &new_exponentials_})
    lanes->resize(weights_.size() * Index(num_ranks_));
  for (int32_t i = 0; i < model.num_batches; ++i)
    weights_[Index(i)] = static_cast<float>(model.weights[Index(i)]);
  expert_loads_.resize(Index(model.num_experts) * weights_.size());
  for (int32_t e = 0; e < model.num_experts; ++e)
    for (int32_t i = 0; i < model.num_batches; ++i)
      expert_loads_[Index(e) * weights_.size() + Index(i)] =
          static_cast<float>(model.loads[Index(i) * Index(model.num_experts) + Index(e)]);
  for (int32_t r = 0; r < num_ranks_; ++r)
    inverse_speed_.push_back(rank_speed[Index(r)] > 0 ? 1 / rank_speed[Index(r)] : 0);
  for (int32_t s = 0; s < start.num_slots(); ++s) {
    rank_of_.push_back(start.RankOf(SlotId(s)).value);
    if (inverse_speed_[Index(RankOf(s))] <= 0) continue;
    live_slots_.push_back(s);
    slots_of_[Index(ExpertAt(s))].push_back(s);
    ++held_[Index(ExpertAt(s)) * Index(num_ranks_) + Index(RankOf(s))];
  }
  share_.resize(slots_of_.size());
  share_variance_.resize(slots_of_.size());
  for (int32_t e = 0; e < model.num_experts; ++e) TakeShare(e);
  AddUpLoads();
  objective_ = Objective();
}

// What each slot of an expert has of it.
void EvenState::TakeShare(int32_t expert) {
  const double share = NumSlots(expert) > 0 ? 1.0 / NumSlots(expert) : 0;
  share_[Index(expert)] = share;
  share_variance_[Index(expert)] = share * share * model_.variance[Index(expert)];
}

EvenLanes EvenState::Lanes() {
  return {.loads = loads_.data(),
          .exponentials = exponentials_.data(),
          .sums = sums_.data(),
          .weights = weights_.data(),
          .sharpness = static_cast<float>(sharpness_),
          .num_blocks = num_blocks_,
          .num_ranks = num_ranks_};
}

// Loads and variances of all ranks, from the placement.
void EvenState::AddUpLoads() {
  std::fill(loads_.begin(), loads_.end(), 0.0F);
  std::fill(variance_.begin(), variance_.end(), 0.0);
  for (const int32_t s : live_slots_) {
    const int32_t expert = ExpertAt(s);
    const size_t rank = Index(RankOf(s));
    const double share = inverse_speed_[rank] * share_[Index(expert)];
    const float* of_expert = expert_loads_.data() + Index(expert) * weights_.size();
    for (int32_t b = 0; b < num_blocks_; ++b)
      for (int32_t lane = 0; lane < kLanes; ++lane)
        loads_[(Index(b) * Index(num_ranks_) + rank) * Index(kLanes) + Index(lane)] +=
            static_cast<float>(share) * of_expert[b * kLanes + lane];
    variance_[rank] += share * share * model_.variance[Index(expert)];
  }
  kept_since_sum_ = 0;
}

double EvenState::Objective() {
  for (size_t r = 0; r < offsets_.size(); ++r) {
    offsets_[r] = Offset(variance_[r]);
    if (inverse_speed_[r] <= 0) offsets_[r] = -std::numeric_limits<float>::infinity();
  }
  return static_cast<double>(kernels_.exponentiate(Lanes(), offsets_.data())) / sharpness_ +
         level_ - 1;
}

// The exponent of a rank without load. Exponents count from the level of the whole, so that they
// stay small.
float EvenState::Offset(double variance) const {
  return static_cast<float>(sharpness_ * (sharpness_ * variance / 2 - level_));
}

// The objective in double precision, for any sharpness.
double EvenState::ObjectiveAt(double sharpness) const {
  double objective = 0;
  for (int32_t i = 0; i < model_.num_batches; ++i) {
    const auto exponent = [&](int32_t rank) {
      const int32_t at = ((i / kLanes) * num_ranks_ + rank) * kLanes + i % kLanes;
      return sharpness * (loads_[Index(at)] - 1 + sharpness * variance_[Index(rank)] / 2);
    };
    double highest = -std::numeric_limits<double>::infinity();
    for (int32_t r = 0; r < num_ranks_; ++r) highest = std::max(highest, exponent(r));
    double sum = 0;
    for (int32_t r = 0; r < num_ranks_; ++r)
      sum += inverse_speed_[Index(r)] > 0 ? std::exp(exponent(r) - highest) : 0;
    objective += model_.weights[Index(i)] * (highest + std::log(sum)) / sharpness;
  }
  return objective;
}

void EvenState::TuneSharpness(double factor) {
  AddUpLoads();
  double best = 0;
  double lowest = std::numeric_limits<double>::infinity();
  for (double s = kLeastSharpness; s < kMostSharpness; s *= kSharpnessStep) {
    const double objective = ObjectiveAt(s);
    if (objective >= lowest) continue;
    lowest = objective;
    best = s;
  }
  sharpness_ = best * factor;
  level_ = 1 + lowest;
  objective_ = Objective();
}

int32_t EvenState::Touch(int32_t rank) {
  int32_t& index = touch_of_[Index(rank)];
  if (index >= 0) return index;
  index = num_touched_++;
  touched_[Index(index)] = rank;
  factors_[0][Index(index)] = factors_[1][Index(index)] = 0;
  new_variance_[Index(index)] = variance_[Index(rank)];
  return index;
}

// A slot gets another share of one of the two experts.
void EvenState::AddTerm(int32_t slot, int32_t which, double share_before, double share_after) {
  const int32_t rank = RankOf(slot);
  const double speed = inverse_speed_[Index(rank)];
  const auto index = Index(Touch(rank));
  factors_[which][index] += static_cast<float>((share_after - share_before) * speed);
  new_variance_[index] += (share_after * share_after - share_before * share_before) * speed *
                          speed * model_.variance[Index(changed_expert_[which])];
}

// As AddTerm does for each of the four shares, without a search for the ranks: there are two.
void EvenState::FindSwap(const EvenMove& move) {
  num_touched_ = 2;
  for (int32_t i = 0; i < 2; ++i) {
    touched_[Index(i)] = RankOf(move.slot[i]);
    changed_expert_[i] = ExpertAt(move.slot[i]);
  }
  for (int32_t i = 0; i < 2; ++i) {
    const auto rank = Index(touched_[Index(i)]);
    const auto leaving = Index(changed_expert_[i]);
    const auto entering = Index(changed_expert_[1 - i]);
    const double speed = inverse_speed_[rank];
    factors_[i][Index(i)] = static_cast<float>(-share_[leaving] * speed);
    factors_[1 - i][Index(i)] = static_cast<float>(share_[entering] * speed);
    new_variance_[Index(i)] =
        variance_[rank] + (share_variance_[entering] - share_variance_[leaving]) * speed * speed;
  }
}

void EvenState::FindReplace(const EvenMove& move) {
  num_touched_ = 0;
  const int32_t slot = move.slot[0];
  changed_expert_[0] = ExpertAt(slot);
  changed_expert_[1] = move.expert[0];
  const double leaving = share_[Index(changed_expert_[0])];
  const double entering = share_[Index(changed_expert_[1])];
  const double rest = 1.0 / (NumSlots(changed_expert_[0]) - 1);
  const double thinned = 1.0 / (NumSlots(changed_expert_[1]) + 1);
  AddTerm(slot, 0, leaving, 0);
  for (const int32_t s : slots_of_[Index(changed_expert_[0])])
    if (s != slot) AddTerm(s, 0, leaving, rest);
  AddTerm(slot, 1, 0, thinned);
  for (const int32_t s : slots_of_[Index(changed_expert_[1])]) AddTerm(s, 1, entering, thinned);
  for (int32_t i = 0; i < num_touched_; ++i) touch_of_[Index(touched_[Index(i)])] = -1;
}

double EvenState::Try(const EvenMove& move) {
  tried_ = move;
  if (move.num_slots == 2)
    FindSwap(move);
  else
    FindReplace(move);
  for (int32_t i = 0; i < num_touched_; ++i)
    new_offsets_[Index(i)] = Offset(new_variance_[Index(i)]);
  EvenChange change{
      .rank = touched_.data(), .offset = new_offsets_.data(), .num_ranks = num_touched_};
  for (int32_t i = 0; i < 2; ++i) {
    change.load[i] = expert_loads_.data() + Index(changed_expert_[i]) * weights_.size();
    change.factor[i] = factors_[i].data();
  }
  tried_change_ = static_cast<double>(kernels_.try_change(Lanes(), change, new_loads_.data(),
                                                          new_exponentials_.data())) /
                  sharpness_;
  return tried_change_;
}

void EvenState::MoveExpert(int32_t slot, int32_t expert) {
  const int32_t old_expert = ExpertAt(slot);
  std::erase(slots_of_[Index(old_expert)], slot);
  slots_of_[Index(expert)].push_back(slot);
  --held_[Index(old_expert) * Index(num_ranks_) + Index(RankOf(slot))];
  ++held_[Index(expert) * Index(num_ranks_) + Index(RankOf(slot))];
  placement_.slot_expert[Index(slot)] = ExpertId(expert);
  TakeShare(old_expert);
  TakeShare(expert);
}

void EvenState::Keep() {
  for (int32_t i = 0; i < tried_.num_slots; ++i) MoveExpert(tried_.slot[i], tried_.expert[i]);
  for (int32_t b = 0; b < num_blocks_; ++b) {
    for (int32_t i = 0; i < num_touched_; ++i) {
      const int32_t from = (b * num_touched_ + i) * kLanes;
      const int32_t to = (b * num_ranks_ + touched_[Index(i)]) * kLanes;
      std::copy_n(new_loads_.begin() + from, kLanes, loads_.begin() + to);
      std::copy_n(new_exponentials_.begin() + from, kLanes, exponentials_.begin() + to);
    }
  }
  for (int32_t i = 0; i < num_touched_; ++i) {
    variance_[Index(touched_[Index(i)])] = new_variance_[Index(i)];
    offsets_[Index(touched_[Index(i)])] = new_offsets_[Index(i)];
  }
  kernels_.add_up(Lanes());
  objective_ += tried_change_;
  if (++kept_since_sum_ < kMovesPerSum) return;
  AddUpLoads();
  objective_ = Objective();
}

}  // namespace wideload::eplb
