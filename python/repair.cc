// repair() and bounds(): layers spread over threads, the answer as numpy arrays.
#include "eplb/search/repair.h"

#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <tuple>

#include "arrays.h"
#include "binding.h"
#include "eplb/placement/batch_loads.h"
#include "eplb/replay/bounds.h"

namespace wideload::python {
namespace {

using namespace wideload::eplb;

// A layer without load has nothing to balance: only experts without a live slot are covered.
RepairResult RepairLayer(const Placement& now, BatchLoads scenarios, RepairOptions options) {
  const bool has_load = scenarios.size() > 0;
  if (!has_load) {
    scenarios = EqualLoads(now.num_experts);
    options.max_fetched_slots = 0;
  }
  RepairResult result = RepairPlacement(now, scenarios, options);
  if (!has_load) result.imbalance_before = result.imbalance_after = 0;
  return result;
}

// placement [layers, slots], fetched slots, imbalance before and after [layers]
using Repaired = std::tuple<Out<int64_t>, Out<int64_t>, Out<double>, Out<double>>;

// weights [iterations]. The number of ranks is that of options.rank_speed.
Repaired Repair(const In<int32_t, 2>& slots, const In<double, 3>& loads,
                const In<double, 1>& weights, const RepairOptions& options, int32_t num_threads) {
  const Batches<double> batches(loads);
  const size_t layers = Index(batches.layers());
  const size_t num_slots = slots.shape(1);
  std::vector<int64_t> repaired(layers * num_slots), fetched(layers);
  std::vector<double> before(layers), after(layers);
  {
    const nb::gil_scoped_release released;
    const auto num_ranks = static_cast<int32_t>(options.rank_speed.size());
    ForLayers(batches.layers(), num_threads, [&](int64_t l) {
      const RepairResult result =
          RepairLayer(PlacementOf(slots, l, batches.width(), num_ranks),
                      LayerOf(batches, l, {weights.data(), weights.size()}).WithLoad(), options);
      CopySlots(result.placement, repaired.data() + Index(l) * num_slots);
      fetched[Index(l)] = result.fetched_slots;
      before[Index(l)] = result.imbalance_before;
      after[Index(l)] = result.imbalance_after;
    });
  }
  return {ToNumpy(std::move(repaired), {layers, num_slots}), ToNumpy(std::move(fetched), {layers}),
          ToNumpy(std::move(before), {layers}), ToNumpy(std::move(after), {layers})};
}

// replica capacity [iterations, layers], sampling floor [iterations, layers], components [layers]
using LowerBounds = std::tuple<Out<double>, Out<double>, Out<double>>;

LowerBounds Bounds(const In<double, 3>& loads, int32_t num_slots, int32_t num_ranks,
                   int32_t num_threads) {
  const Batches<double> batches(loads);
  const size_t layers = Index(batches.layers());
  const size_t iterations = Index(batches.iterations());
  std::vector<double> capacity(iterations * layers), floor(iterations * layers), components(layers);
  {
    const nb::gil_scoped_release released;
    const Sizes sizes{.num_slots = num_slots, .num_ranks = num_ranks};
    ValidateSizes(static_cast<int32_t>(batches.width()), num_slots, num_ranks, "bounds");
    ForLayers(batches.layers(), num_threads, [&](int64_t l) {
      for (size_t i = 0; i < iterations; ++i) {
        const std::span<const double> load = batches.At(static_cast<int64_t>(i), l);
        double total = 0;
        for (const double tokens : load) total += tokens;
        if (total <= 0) continue;
        capacity[i * layers + Index(l)] = ReplicaCapacityBound(load, sizes);
        floor[i * layers + Index(l)] = SamplingFloor(static_cast<int64_t>(total), num_ranks);
      }
      const BatchLoads scenarios = LayerOf(batches, l).WithLoad();
      if (scenarios.size() > 0) components[Index(l)] = ComponentBound(scenarios, sizes);
    });
  }
  return {ToNumpy(std::move(capacity), {iterations, layers}),
          ToNumpy(std::move(floor), {iterations, layers}),
          ToNumpy(std::move(components), {layers})};
}

}  // namespace

void BindRepair(nb::module_& m) {
  nb::class_<RepairOptions>(m, "RepairOptions")
      .def(nb::init<>())
      .def_rw("max_fetched_slots", &RepairOptions::max_fetched_slots)
      .def_rw("splits_evenly", &RepairOptions::splits_evenly)
      .def_rw("until", &RepairOptions::until)
      .def_rw("min_gain", &RepairOptions::min_gain)
      .def_rw("rank_speed", &RepairOptions::rank_speed)
      .def_rw("seed", &RepairOptions::seed)
      .def_rw("max_cross_slots", &RepairOptions::max_cross_slots)
      .def_prop_rw(
          "nodes",
          [](const RepairOptions& o) { return std::tuple(o.nodes.num_nodes, o.nodes.num_groups); },
          [](RepairOptions& o, const std::tuple<int32_t, int32_t>& sizes) {
            o.nodes = {std::get<0>(sizes), std::get<1>(sizes)};
          });
  m.def("repair", Repair, nb::arg("placement"), nb::arg("loads"), nb::arg("weights"),
        nb::arg("options"), nb::arg("num_threads"));
  m.def("bounds", Bounds, nb::arg("loads"), nb::arg("num_slots"), nb::arg("num_ranks"),
        nb::arg("num_threads"));
}

}  // namespace wideload::python
