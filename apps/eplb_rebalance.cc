#include "eplb_rebalance.h"

#include <algorithm>

#include "base/error.h"
#include "rebalance/replay.h"

namespace wideload::apps {
namespace {

using rebalance::Replayed;
using rebalance::ReplaySplit;

ReplaySplit SplitOf(const std::string& name) {
  if (name == "optimal") return ReplaySplit::kOptimal;
  if (name == "even") return ReplaySplit::kEven;
  Throw(ErrorKind::kInvalid, "--splits {} with --rebalance; allowed: even, optimal", name);
}

// [iterations][layers * experts] of all layers of the source.
std::vector<int32_t> CountsOf(const LayerTraces& traces) {
  const size_t num_layers = traces.layers().size();
  const auto experts = static_cast<size_t>(traces.num_experts());
  std::vector<int32_t> counts;
  for (size_t l = 0; l < num_layers; ++l) {
    eplb::LayerTrace trace = traces.Make(l);
    std::vector<std::vector<uint16_t>>& all = trace.recorded;
    std::move(trace.measured.begin(), trace.measured.end(), std::back_inserter(all));
    counts.resize(all.size() * num_layers * experts);
    for (size_t i = 0; i < all.size(); ++i)
      for (const uint16_t expert : all[i]) ++counts[(i * num_layers + l) * experts + expert];
  }
  return counts;
}

Json ResultJson(const std::string& split, const Replayed& replayed) {
  std::vector<double> imbalance;
  for (const rebalance::ReplayedIteration& iteration : replayed.iterations)
    imbalance.push_back(iteration.imbalance);
  const auto iterations = static_cast<double>(replayed.iterations.size());
  const auto layers = static_cast<double>(replayed.last.size());
  return {{"split", split},
          {"imbalance_mean", replayed.MeanImbalance()},
          {"imbalance_p99", eplb::Summarise(std::move(imbalance)).p99},
          {"slots_fetched_per_layer", static_cast<double>(replayed.figures.fetched_slots) / layers},
          {"changes", replayed.figures.num_changes},
          {"plan_ms_per_iteration",
           static_cast<double>(replayed.figures.planning_ns) * 1e-6 / iterations}};
}

}  // namespace

void AddRebalanceFlags(Command command, RebalanceFlags& flags) {
  command
      .Add("--rebalance", flags.mode,
           "replay an online balancer from contiguous placements on: off, repair, tensorrt_llm, "
           "random:SEED; off: --policies are compared")
      .ShowDefault();
  command
      .Add("--max-fetched-slots-per-iter", flags.options.max_fetched_slots_per_iter,
           "with --rebalance repair: slots of all layers that one change may fetch")
      .Positive()
      .ShowDefault();
  command
      .Add("--layer-updates-per-iter", flags.options.layer_updates_per_iter,
           "with --rebalance tensorrt_llm: layers placed anew at each step")
      .Positive()
      .ShowDefault();
}

Json SimulateRebalance(const RebalanceFlags& flags, const LayerTraces& traces,
                       const RebalanceRun& run) {
  rebalance::OnlineOptions options = flags.options;
  rebalance::ParseMode(flags.mode, "--rebalance", options);
  std::vector<ReplaySplit> splits;
  for (const std::string& name : run.splits) splits.push_back(SplitOf(name));
  const std::vector<eplb::Placement> start(
      traces.layers().size(),
      eplb::ContiguousPlacement(traces.num_experts(), run.num_slots, run.ep_size));
  const std::vector<int32_t> counts = CountsOf(traces);
  Json results = Json::array();
  size_t num_iterations = 0;
  for (size_t s = 0; s < splits.size(); ++s) {
    const Replayed replayed = rebalance::Replay(options, start, counts, splits[s]);
    num_iterations = replayed.iterations.size();
    results.push_back(ResultJson(run.splits[s], replayed));
  }
  return {{"rebalance", flags.mode},
          {"results", results},
          {"layers", start.size()},
          {"layers_without_load", traces.without_load()},
          {"iterations", num_iterations},
          {"num_experts", traces.num_experts()},
          {"ep_size", run.ep_size},
          {"num_slots", run.num_slots},
          {"delay_iterations", options.delay_iterations}};
}

std::string RebalanceText(const Json& report) {
  std::string text = fmt::format("{:<14} {:<10} {:>9} {:>8} {:>8} {:>9}\n", "rebalance", "split",
                                 "imbalance", "p99", "fetched", "plan ms");
  for (const Json& r : report["results"])
    text += fmt::format("{:<14} {:<10} {:>9.5f} {:>8.4f} {:>8.1f} {:>9.3f}\n",
                        report["rebalance"].get<std::string>(), r["split"].get<std::string>(),
                        r["imbalance_mean"].get<double>(), r["imbalance_p99"].get<double>(),
                        r["slots_fetched_per_layer"].get<double>(),
                        r["plan_ms_per_iteration"].get<double>());
  return text + fmt::format(
                    "{} layers, {} iterations on {} ranks with {} slots from contiguous ones on; "
                    "imbalance by tokens; fetched: slots of a layer, in all; changes take effect "
                    "{} iterations after their counts\n",
                    report["layers"].get<int64_t>(), report["iterations"].get<int64_t>(),
                    report["ep_size"].get<int64_t>(), report["num_slots"].get<int64_t>(),
                    report["delay_iterations"].get<int64_t>());
}

}  // namespace wideload::apps
