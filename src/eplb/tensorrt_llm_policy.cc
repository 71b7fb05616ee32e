#include "eplb/tensorrt_llm_policy.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"

namespace wideload::eplb {
namespace {

constexpr double kFull = std::numeric_limits<double>::infinity();

// A tournament over keys: the root names the winner; changing one key replays one path. Prefers is
// a strict order on keys; among equal keys LeftWins decides between the lower and the higher index.
template <class Prefers, bool kLeftWinsTies>
class Tournament {
 public:
  Tournament(std::vector<double> keys, double loser) : keys_(std::move(keys)) {
    size_ = std::bit_ceil(std::max<size_t>(keys_.size(), 2));
    keys_.resize(size_, loser);
    winner_.resize(2 * size_);
    for (size_t i = 0; i < size_; ++i) winner_[size_ + i] = static_cast<int32_t>(i);
    for (size_t i = size_ - 1; i >= 1; --i) winner_[i] = Play(winner_[2 * i], winner_[2 * i + 1]);
  }

  int32_t Winner() const { return winner_[1]; }
  double Key(int32_t index) const { return keys_[static_cast<size_t>(index)]; }
  void Change(int32_t index, double key) {
    keys_[static_cast<size_t>(index)] = key;
    for (size_t i = (size_ + static_cast<size_t>(index)) / 2; i >= 1; i /= 2)
      winner_[i] = Play(winner_[2 * i], winner_[2 * i + 1]);
  }

 private:
  int32_t Play(int32_t left, int32_t right) const {
    const double left_key = Key(left);
    const double right_key = Key(right);
    const bool left_wins =
        kLeftWinsTies ? !Prefers()(right_key, left_key) : Prefers()(left_key, right_key);
    return left_wins ? left : right;
  }

  std::vector<double> keys_;
  size_t size_ = 0;
  std::vector<int32_t> winner_;  // [2 * size], node i over nodes 2i and 2i + 1
};

using HottestExpert = Tournament<std::greater<>, false>;
using LeastLoadedRank = Tournament<std::less<>, true>;

void CheckLoads(std::span<const float> loads) {
  for (size_t e = 0; e < loads.size(); ++e)
    if (!(loads[e] >= 0) || std::isinf(loads[e]))
      Throw(ErrorKind::kInvalid, "the load of expert {} is {}; it must be finite and at least 0", e,
            loads[e]);
}

struct Item {
  double load;  // per replica
  int32_t expert;
  int32_t replicas;
};

}  // namespace

std::vector<int32_t> TensorRtLlmReplicaCounts(std::span<const float> loads, int32_t num_slots) {
  const auto num_experts = static_cast<int32_t>(loads.size());
  CheckLoads(loads);
  if (num_experts == 0 || num_slots < num_experts)
    Throw(ErrorKind::kInvalid, "num_slots is {}; it must be at least {} (experts)", num_slots,
          std::max(num_experts, 1));
  std::vector<int32_t> counts(loads.size(), 1);
  if (num_slots == num_experts) return counts;
  if (std::accumulate(loads.begin(), loads.end(), 0.0) == 0) {
    for (int32_t e = 0; e < num_experts; ++e)
      counts[static_cast<size_t>(e)] =
          num_slots / num_experts + (e < num_slots % num_experts ? 1 : 0);
    return counts;
  }
  HottestExpert hottest(std::vector<double>(loads.begin(), loads.end()), -1.0);
  for (int32_t spare = num_slots - num_experts; spare > 0; --spare) {
    const int32_t expert = hottest.Winner();
    const auto e = static_cast<size_t>(expert);
    ++counts[e];
    hottest.Change(expert, double{loads[e]} / counts[e]);
  }
  return counts;
}

Placement TensorRtLlmPlacement(std::span<const float> loads, std::span<const int32_t> replicas,
                               int32_t num_ranks) {
  CheckLoads(loads);
  WIDELOAD_CHECK(loads.size() == replicas.size(), "{} loads, {} replica counts", loads.size(),
                 replicas.size());
  if (std::any_of(replicas.begin(), replicas.end(), [](int32_t n) { return n < 1; }))
    Throw(ErrorKind::kInvalid, "a replica count is below 1; every expert needs at least one slot");
  const auto num_experts = static_cast<int32_t>(loads.size());
  const int32_t num_slots = std::accumulate(replicas.begin(), replicas.end(), 0);
  ValidateSizes(num_experts, num_slots, num_ranks, "TensorRT-LLM placement");
  std::vector<Item> items(loads.size());
  for (size_t e = 0; e < items.size(); ++e)
    items[e] = {double{loads[e]} / replicas[e], static_cast<int32_t>(e), replicas[e]};
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
    return a.load != b.load ? a.load > b.load : a.expert < b.expert;
  });

  const int32_t slots_per_rank = num_slots / num_ranks;
  Placement placement{num_experts, num_ranks, {}};
  placement.slot_expert.resize(static_cast<size_t>(num_slots));
  std::vector<int32_t> used(static_cast<size_t>(num_ranks), 0);
  LeastLoadedRank ranks(std::vector<double>(static_cast<size_t>(num_ranks), 0.0), kFull);
  for (const Item& item : items) {
    for (int32_t i = 0; i < item.replicas; ++i) {
      const int32_t rank = ranks.Winner();
      const int32_t position = used[static_cast<size_t>(rank)]++;
      placement.slot_expert[static_cast<size_t>(rank * slots_per_rank + position)] =
          ExpertId(item.expert);
      ranks.Change(rank, position + 1 == slots_per_rank ? kFull : ranks.Key(rank) + item.load);
    }
  }
  return placement;
}

Placement TensorRtLlmPlacement(std::span<const float> loads, int32_t num_slots, int32_t num_ranks) {
  ValidateSizes(static_cast<int32_t>(loads.size()), num_slots, num_ranks, "TensorRT-LLM placement");
  return TensorRtLlmPlacement(loads, TensorRtLlmReplicaCounts(loads, num_slots), num_ranks);
}

}  // namespace wideload::eplb
