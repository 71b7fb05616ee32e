// The extension module wideload_eplb._core: the balancer's functions on whole models, layers spread
// over a thread pool, the interpreter's lock released. Arrays come checked and in the stated dtype
// from wideload_eplb/__init__.py, which holds the contracts; errors of the balancer become
// ValueError or RuntimeError with the same message. Functions may be called from several threads.
#include "binding.h"

#include <nanobind/stl/array.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "arrays.h"
#include "base/error.h"
#include "eplb/placement/even_split.h"
#include "eplb/placement/keep_slots.h"
#include "eplb/policies/deepseek_policy.h"
#include "eplb/policies/policy.h"
#include "eplb/replay/simulate.h"
#include "eplb/search/scenario_planner.h"
#include "eplb/split/integer_split.h"
#include "eplb/split/water_filling.h"

namespace wideload::python {
namespace {

using namespace wideload::eplb;

using Maps = std::tuple<Out<int64_t>, Out<int64_t>, Out<int64_t>>;

// logical_to_physical_map [layers, experts, most replicas], padded with -1.
std::vector<int64_t> ExpertSlots(const std::vector<DeepSeekPlan>& plans, size_t num_experts,
                                 size_t most) {
  std::vector<int64_t> slots(plans.size() * num_experts * most, -1);
  for (size_t l = 0; l < plans.size(); ++l)
    for (size_t s = 0; s < plans[l].slot_expert.size(); ++s)
      slots[(l * num_experts + Index(plans[l].slot_expert[s])) * most +
            Index(plans[l].slot_replica[s])] = static_cast<int64_t>(s);
  return slots;
}

// sizes: num_replicas, num_groups, num_nodes, num_gpus.
Maps RebalanceExperts(const In<float, 2>& weight, const std::array<int32_t, 4>& sizes,
                      int32_t num_threads) {
  const size_t layers = weight.shape(0);
  const size_t experts = weight.shape(1);
  const auto num_slots = Index(sizes[0]);
  std::vector<DeepSeekPlan> plans(layers);
  std::vector<int64_t> slot_expert, replicas(layers * experts), expert_slots;
  size_t most = 1;
  {
    const nb::gil_scoped_release released;
    const DeepSeekSizes plan_sizes{.num_slots = sizes[0],
                                   .num_groups = sizes[1],
                                   .num_nodes = sizes[2],
                                   .num_ranks = sizes[3]};
    ForLayers(static_cast<int64_t>(layers), num_threads, [&](int64_t l) {
      plans[Index(l)] =
          DeepSeekRebalance({weight.data() + Index(l) * experts, experts}, plan_sizes);
    });
    slot_expert.reserve(layers * num_slots);
    for (size_t l = 0; l < layers; ++l) {
      const DeepSeekPlan& plan = plans[l];
      slot_expert.insert(slot_expert.end(), plan.slot_expert.begin(), plan.slot_expert.end());
      std::copy(plan.replicas.begin(), plan.replicas.end(), replicas.data() + l * experts);
      most = std::max(most, Index(*std::max_element(plan.replicas.begin(), plan.replicas.end())));
    }
    expert_slots = ExpertSlots(plans, experts, most);
  }
  return {ToNumpy(std::move(slot_expert), {layers, num_slots}),
          ToNumpy(std::move(expert_slots), {layers, experts, most}),
          ToNumpy(std::move(replicas), {layers, experts})};
}

// sizes: num_slots, num_groups, num_nodes, num_ranks, max_cross_slots. held: what the slots hold
// now [layers, num_slots], or [layers, 0] when there is nothing, and the price of a fetch.
Out<int64_t> Plan(const In<double, 3>& loads, const std::array<int32_t, 5>& sizes,
                  const std::string& policy_name, uint64_t seed,
                  const std::pair<In<int32_t, 2>, double>& held, int32_t num_threads) {
  const bool has_current = held.first.shape(1) != 0;
  const Batches<double> batches(loads);
  std::vector<int64_t> slots(Index(batches.layers()) * Index(sizes[0]));
  {
    const nb::gil_scoped_release released;
    const Policy& policy = FindPolicy(policy_name);
    ValidateSizes(static_cast<int32_t>(batches.width()), sizes[0], sizes[3], "plan");
    ForLayers(batches.layers(), num_threads, [&](int64_t l) {
      Placement now;
      if (has_current) now = PlacementOf(held.first, l, batches.width(), sizes[3]);
      const BatchLoads recorded = LayerOf(batches, l);
      const Placement placement =
          PlanLayer(policy, {.loads = recorded,
                             .num_slots = sizes[0],
                             .num_ranks = sizes[3],
                             .nodes = {.num_nodes = sizes[2], .num_groups = sizes[1]},
                             .max_cross_slots = sizes[4],
                             .seed = seed,
                             .current = has_current ? &now : nullptr,
                             .fetch_price = held.second});
      CopySlots(placement, slots.data() + Index(l) * Index(sizes[0]));
    });
  }
  return ToNumpy(std::move(slots), {Index(batches.layers()), Index(sizes[0])});
}

Out<int64_t> SplitWhole(const In<int64_t, 3>& counts, const In<int32_t, 2>& slots,
                        int32_t num_ranks, int32_t num_threads) {
  const Batches<int64_t> batches(counts);
  const size_t num_slots = slots.shape(1);
  std::vector<int64_t> quotas(Index(batches.iterations() * batches.layers()) * num_slots);
  {
    const nb::gil_scoped_release released;
    ForLayers(batches.layers(), num_threads, [&](int64_t l) {
      IntegerSplit split(PlacementOf(slots, l, batches.width(), num_ranks));
      for (int64_t i = 0; i < batches.iterations(); ++i)
        std::ranges::copy(split.Solve(batches.At(i, l)),
                          quotas.data() + Index(i * batches.layers() + l) * num_slots);
    });
  }
  return ToNumpy(std::move(quotas),
                 {Index(batches.iterations()), Index(batches.layers()), num_slots});
}

Out<double> SplitFractional(const In<double, 3>& loads, const In<int32_t, 2>& slots,
                            const In<double, 1>& rank_speed, double tokens_per_active_slot,
                            int32_t num_threads) {
  const Batches<double> batches(loads);
  const size_t num_slots = slots.shape(1);
  const SplitCosts costs{{rank_speed.data(), rank_speed.data() + rank_speed.size()},
                         tokens_per_active_slot};
  std::vector<double> shares(Index(batches.iterations() * batches.layers()) * num_slots);
  {
    const nb::gil_scoped_release released;
    ForLayers(batches.layers(), num_threads, [&](int64_t l) {
      const auto num_ranks = static_cast<int32_t>(rank_speed.size());
      WaterFilling split(PlacementOf(slots, l, batches.width(), num_ranks), costs);
      for (int64_t i = 0; i < batches.iterations(); ++i) {
        split.Solve(batches.At(i, l));
        if (split.unplaced_tokens() > 0)
          Throw(ErrorKind::kInvalid,
                "layer {}: {} tokens are of experts whose slots all lie on ranks with rank_speed "
                "0; every expert with tokens needs a slot on a live rank (repair gives it one)",
                l, split.unplaced_tokens());
        std::ranges::copy(split.slot_tokens(),
                          shares.data() + Index(i * batches.layers() + l) * num_slots);
      }
    });
  }
  return ToNumpy(std::move(shares),
                 {Index(batches.iterations()), Index(batches.layers()), num_slots});
}

// Measures one placement under one kind of split, batch after batch.
class ImbalanceMeter {
 public:
  ImbalanceMeter(const Placement& placement, SimulatedSplit split)
      : placement_(placement), split_(split), fractional_(placement), whole_(placement) {}

  double Measure(std::span<const double> loads) {
    if (split_ == SimulatedSplit::kEven) return EvenSplitImbalance(placement_, loads);
    if (split_ == SimulatedSplit::kOptimalFractional) {
      fractional_.Solve(loads);
      return fractional_.imbalance();
    }
    counts_.assign(loads.begin(), loads.end());  // whole numbers, the caller checked
    whole_.Solve(counts_);
    const std::span<const int64_t> ranks = whole_.rank_loads();
    return ImbalanceRatio(std::vector<double>(ranks.begin(), ranks.end()));
  }

 private:
  Placement placement_;
  SimulatedSplit split_;
  WaterFilling fractional_;
  IntegerSplit whole_;
  std::vector<int64_t> counts_;
};

Out<double> Imbalance(const In<double, 3>& loads, const In<int32_t, 2>& slots, int32_t num_ranks,
                      const std::string& split_name, int32_t num_threads) {
  const Batches<double> batches(loads);
  std::vector<double> ratios(Index(batches.iterations() * batches.layers()));
  {
    const nb::gil_scoped_release released;
    const SimulatedSplit split = ParseSimulatedSplit(split_name);
    if (split == SimulatedSplit::kRoundRobin)
      Throw(ErrorKind::kInvalid,
            "split is \"round_robin\", which depends on the order of tokens; allowed here: even, "
            "optimal, optimal_fractional; simulate() knows all");
    ForLayers(batches.layers(), num_threads, [&](int64_t l) {
      ImbalanceMeter meter(PlacementOf(slots, l, batches.width(), num_ranks), split);
      for (int64_t i = 0; i < batches.iterations(); ++i)
        ratios[Index(i * batches.layers() + l)] = meter.Measure(batches.At(i, l));
    });
  }
  return ToNumpy(std::move(ratios), {Index(batches.iterations()), Index(batches.layers())});
}

// (name, what it does, its properties that are true) of every policy.
using PolicyRow = std::tuple<std::string, std::string, std::vector<std::string>>;

std::vector<PolicyRow> PolicyTable() {
  constexpr std::pair<const char*, bool Policy::*> kProperties[] = {
      {"looks_at_nodes", &Policy::looks_at_nodes},
      {"bounds_cross_slots", &Policy::bounds_cross_slots},
      {"weighs_fetches", &Policy::weighs_fetches},
      {"searches", &Policy::searches},
      {"is_compared", &Policy::is_compared}};
  std::vector<PolicyRow> table;
  for (const Policy& policy : Policies()) {
    std::vector<std::string> properties;
    for (const auto& [name, property] : kProperties)
      if (policy.*property) properties.emplace_back(name);
    table.emplace_back(policy.name, policy.summary, std::move(properties));
  }
  return table;
}

void TranslateError(const std::exception_ptr& thrown, void*) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& error) {
    const bool is_refusal = ExitCode(error.kind()) == 2 && error.kind() != ErrorKind::kResource;
    PyErr_SetString(is_refusal ? PyExc_ValueError : PyExc_RuntimeError, error.what());
  }
}

}  // namespace
}  // namespace wideload::python

NB_MODULE(_core, m) {
  using namespace wideload::python;
  namespace nb = nanobind;
  nb::register_exception_translator(TranslateError);
  m.def("policies", PolicyTable);
  m.def("rebalance_experts", RebalanceExperts, nb::arg("weight"), nb::arg("sizes"),
        nb::arg("num_threads"));
  m.def("plan", Plan, nb::arg("loads"), nb::arg("sizes"), nb::arg("policy"), nb::arg("seed"),
        nb::arg("held"), nb::arg("num_threads"));
  m.def("split_whole", SplitWhole, nb::arg("counts"), nb::arg("placement"), nb::arg("num_ranks"),
        nb::arg("num_threads"));
  m.def("split_fractional", SplitFractional, nb::arg("loads"), nb::arg("placement"),
        nb::arg("rank_speed"), nb::arg("tokens_per_active_slot"), nb::arg("num_threads"));
  m.def("imbalance", Imbalance, nb::arg("loads"), nb::arg("placement"), nb::arg("num_ranks"),
        nb::arg("split"), nb::arg("num_threads"));
  BindSimulate(m);
  BindRepair(m);
}
