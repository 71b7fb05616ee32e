#include "eplb/search/component_plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "eplb/placement/index.h"
#include "parallel/mapping.h"

namespace wideload::eplb {
namespace {

// A set of ranks that becomes one component.
struct Group {
  int32_t first_rank = 0;
  int32_t num_ranks = 0;
  int32_t num_experts = 0;       // it must hold
  std::vector<int32_t> experts;  // hottest first
};

// Fills one group's ranks.
class GroupFiller {
 public:
  GroupFiller(std::span<const double> loads, const Group& group, Placement& placement)
      : loads_(loads),
        group_(group),
        placement_(placement),
        rank_load_(Index(group.num_ranks), 0.0),
        rank_used_(Index(group.num_ranks), 0),
        joined_(Index(group.num_ranks)) {
    std::iota(joined_.begin(), joined_.end(), 0);
  }

  void Fill(ReplicaRule rule) {
    CountReplicas(rule);
    std::vector<int32_t> order(group_.experts.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [this](int32_t a, int32_t b) {
      const bool shared_a = replicas_[Index(a)] > 1;
      const bool shared_b = replicas_[Index(b)] > 1;
      return shared_a != shared_b ? shared_a : Share(a) > Share(b);
    });
    for (const int32_t i : order) PlaceExpert(i);
  }

 private:
  double Share(int32_t i) const {
    return loads_[Index(group_.experts[Index(i)])] / replicas_[Index(i)];
  }

  void CountReplicas(ReplicaRule rule) {
    const auto experts = static_cast<int32_t>(group_.experts.size());
    const int32_t spare = group_.num_ranks * placement_.slots_per_rank() - experts;
    replicas_.assign(Index(experts), 1);
    for (int32_t i = 0; i < spare; ++i) {
      int32_t best = i % experts;
      const bool full = replicas_[Index(best)] >= group_.num_ranks;
      for (int32_t e = 0; e < experts && (full || rule == ReplicaRule::kHighestPerSlot); ++e) {
        if (replicas_[Index(e)] >= group_.num_ranks) continue;
        if (replicas_[Index(best)] >= group_.num_ranks || Share(e) > Share(best)) best = e;
      }
      ++replicas_[Index(best)];
    }
  }

  int32_t Root(int32_t rank) const {
    while (joined_[Index(rank)] != rank) rank = joined_[Index(rank)];
    return rank;
  }

  // The rank for the next copy: free, without this expert, not joined to `roots` while there is
  // such a rank, then least loaded.
  int32_t BestRank(const std::vector<int32_t>& taken, const std::vector<int32_t>& roots) const {
    int32_t best = -1;
    int best_class = 3;
    for (int32_t r = 0; r < group_.num_ranks; ++r) {
      if (rank_used_[Index(r)] == placement_.slots_per_rank()) continue;
      const bool has = std::find(taken.begin(), taken.end(), r) != taken.end();
      const bool joined = std::find(roots.begin(), roots.end(), Root(r)) != roots.end();
      const int rank_class = has ? 2 : joined ? 1 : 0;
      if (best < 0 || rank_class < best_class ||
          (rank_class == best_class && rank_load_[Index(r)] < rank_load_[Index(best)])) {
        best = r;
        best_class = rank_class;
      }
    }
    return best;
  }

  void PlaceExpert(int32_t i) {
    std::vector<int32_t> taken;
    std::vector<int32_t> roots;
    for (int32_t copy = 0; copy < replicas_[Index(i)]; ++copy) {
      const int32_t rank = BestRank(taken, roots);
      const int32_t slot =
          (group_.first_rank + rank) * placement_.slots_per_rank() + rank_used_[Index(rank)]++;
      placement_.slot_expert[Index(slot)] = ExpertId(group_.experts[Index(i)]);
      rank_load_[Index(rank)] += Share(i);
      taken.push_back(rank);
      if (!roots.empty()) joined_[Index(Root(rank))] = roots.front();
      roots.assign(1, Root(rank));
    }
  }

  std::span<const double> loads_;
  const Group& group_;
  Placement& placement_;
  std::vector<int32_t> replicas_;  // by position in group_.experts
  std::vector<double> rank_load_;
  std::vector<int32_t> rank_used_;
  std::vector<int32_t> joined_;  // union-find over the group's ranks
};

// Exchanges second copies on a rank against experts that the rank lacks.
class DuplicateRemover {
 public:
  DuplicateRemover(std::span<const double> loads, Placement& placement)
      : loads_(loads),
        placement_(placement),
        slots_(Index(placement.num_experts), 0),
        copies_(Index(placement.num_experts) * Index(placement.num_ranks), 0) {
    for (int32_t s = 0; s < placement.num_slots(); ++s) {
      ++slots_[Index(At(s))];
      ++Copies(At(s), RankOf(s));
    }
  }

  // A rank without the expert has two experts at least that the rank with two copies has not, or
  // copies of its own to spare: while no expert has more slots than there are ranks, each exchange
  // leaves one duplicate less.
  void Run() {
    for (int32_t s = 0; s < placement_.num_slots(); ++s)
      while (Copies(At(s), RankOf(s)) > 1) {
        const int32_t other = BestPartner(s);
        if (other < 0) break;
        Exchange(s, other);
      }
  }

 private:
  int32_t At(int32_t slot) const { return placement_.slot_expert[Index(slot)].value; }
  int32_t RankOf(int32_t slot) const { return slot / placement_.slots_per_rank(); }
  int32_t& Copies(int32_t expert, int32_t rank) {
    return copies_[Index(expert) * Index(placement_.num_ranks) + Index(rank)];
  }
  double Share(int32_t expert) const { return loads_[Index(expert)] / slots_[Index(expert)]; }

  // The slot whose exchange with `slot` takes a duplicate away and changes rank loads least.
  int32_t BestPartner(int32_t slot) {
    const int32_t expert = At(slot);
    int32_t best = -1;
    for (int32_t s = 0; s < placement_.num_slots(); ++s) {
      if (Copies(expert, RankOf(s)) > 0) continue;
      if (Copies(At(s), RankOf(slot)) > 0 && Copies(At(s), RankOf(s)) < 2) continue;
      const auto change = [&](int32_t with) { return std::abs(Share(At(with)) - Share(expert)); };
      if (best < 0 || change(s) < change(best)) best = s;
    }
    return best;
  }

  void Exchange(int32_t a, int32_t b) {
    --Copies(At(a), RankOf(a));
    --Copies(At(b), RankOf(b));
    std::swap(placement_.slot_expert[Index(a)], placement_.slot_expert[Index(b)]);
    ++Copies(At(a), RankOf(a));
    ++Copies(At(b), RankOf(b));
  }

  std::span<const double> loads_;
  Placement& placement_;
  std::vector<int32_t> slots_;   // [num_experts]
  std::vector<int32_t> copies_;  // [num_experts * num_ranks]
};

std::vector<Group> MakeGroups(int32_t num_experts, const Placement& placement) {
  const int32_t count = FewestComponents(num_experts, placement.num_slots(), placement.num_ranks);
  std::vector<Group> groups(Index(count));
  for (int32_t g = 0; g < count; ++g) {
    const parallel::Shard ranks = parallel::ShardOf(placement.num_ranks, count, g);
    Group& group = groups[Index(g)];
    group.first_rank = static_cast<int32_t>(ranks.begin);
    group.num_ranks = static_cast<int32_t>(ranks.size());
    // Joining n ranks takes n - 1 spare slots; a single component gets all there are.
    group.num_experts = count == 1
                            ? num_experts
                            : group.num_ranks * placement.slots_per_rank() - group.num_ranks + 1;
  }
  return groups;
}

}  // namespace

int32_t FewestComponents(int32_t num_experts, int32_t num_slots, int32_t num_ranks) {
  return std::max(1, num_ranks - (num_slots - num_experts));
}

int32_t SlotsForOneComponent(int32_t num_experts, int32_t num_ranks) {
  return (num_experts + 2 * num_ranks - 2) / num_ranks * num_ranks;
}

Placement ComponentPlan(std::span<const double> loads, int32_t num_slots, int32_t num_ranks,
                        ReplicaRule rule) {
  const auto num_experts = static_cast<int32_t>(loads.size());
  ValidateSizes(num_experts, num_slots, num_ranks, "component plan");
  Placement placement{num_experts, num_ranks, std::vector<ExpertId>(Index(num_slots))};
  std::vector<Group> groups = MakeGroups(num_experts, placement);
  std::vector<int32_t> hottest(Index(num_experts));
  std::iota(hottest.begin(), hottest.end(), 0);
  std::stable_sort(hottest.begin(), hottest.end(),
                   [&loads](int32_t a, int32_t b) { return loads[Index(a)] > loads[Index(b)]; });
  std::vector<double> group_load(groups.size(), 0.0);
  for (const int32_t expert : hottest) {
    size_t best = groups.size();
    for (size_t g = 0; g < groups.size(); ++g) {
      if (static_cast<int32_t>(groups[g].experts.size()) == groups[g].num_experts) continue;
      if (best == groups.size() ||
          group_load[g] / groups[g].num_ranks < group_load[best] / groups[best].num_ranks)
        best = g;
    }
    groups[best].experts.push_back(expert);
    group_load[best] += loads[Index(expert)];
  }
  for (const Group& group : groups) GroupFiller(loads, group, placement).Fill(rule);
  DuplicateRemover(loads, placement).Run();
  return placement;
}

}  // namespace wideload::eplb
