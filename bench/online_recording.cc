#include "online_recording.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <numeric>

#include "eplb/placement/even_split.h"
#include "eplb/policies/tensorrt_llm_policy.h"

namespace wideload::bench {
namespace {

using rebalance::Mode;
using rebalance::Replayed;
using rebalance::ReplayedIteration;
using rebalance::ReplaySplit;

constexpr size_t kSettled = 4;  // iterations of a domain before "from the fifth on"

// TensorRT-LLM's greedy placement of each iteration by its own counts, even split.
std::vector<ReplayedIteration> Clairvoyant(const Recording& recording, int32_t num_slots) {
  std::vector<ReplayedIteration> out;
  for (size_t i = 0; i < recording.num_iterations(); ++i) {
    ReplayedIteration& iteration = out.emplace_back();
    for (size_t l = 0; l < recording.num_layers; ++l) {
      const std::span<const int32_t> row = recording.Row(i, l);
      const std::vector<float> loads(row.begin(), row.end());
      const std::vector<double> tokens(row.begin(), row.end());
      iteration.imbalance +=
          eplb::EvenSplitImbalance(
              eplb::TensorRtLlmPlacement(loads, num_slots, recording.num_ranks), tokens) /
          static_cast<double>(recording.num_layers);
      for (const int32_t count : row) iteration.routed_tokens += count;
    }
  }
  return out;
}

// TensorRT-LLM's balancer that sees `period` iterations as one, so that it moves 1 / period as much
// (TRTLLM_EPLB_ITERATION_INTERVAL).
std::vector<ReplayedIteration> EveryFew(const rebalance::OnlineOptions& options,
                                        const std::vector<eplb::Placement>& start,
                                        const Recording& recording, size_t period) {
  std::vector<ReplayedIteration> out;
  std::vector<eplb::Placement> now = start;
  const auto planner = rebalance::MakePlanner(options, start);
  const size_t row = recording.num_layers * static_cast<size_t>(recording.num_experts);
  for (size_t i = 0; i < recording.num_iterations(); ++i) {
    const auto counts = std::span(recording.counts).subspan(i * row, row);
    const Replayed one = rebalance::Replay({}, now, counts, ReplaySplit::kOptimal);
    out.push_back(one.iterations[0]);
    if ((i + 1) % period != 0) continue;
    for (const rebalance::LayerChange& change :
         planner->Plan({static_cast<int64_t>(i), false, counts})) {
      eplb::Placement& placement = now[static_cast<size_t>(change.moe_layer)];
      const int32_t fetched = eplb::CountFetchedSlots(placement, change.placement);
      out.back().fetched_slots += fetched;
      out.back().layer_fetched_slots.resize(recording.num_layers);
      out.back().layer_fetched_slots[static_cast<size_t>(change.moe_layer)] = fetched;
      placement = change.placement;
    }
  }
  return out;
}

}  // namespace

size_t Recording::IndexInDomain(size_t iteration) const {
  size_t first = iteration;
  while (first > 0 && domains[first - 1] == domains[iteration]) --first;
  return iteration - first;
}

std::span<const int32_t> Recording::Row(size_t iteration, size_t layer) const {
  const auto experts = static_cast<size_t>(num_experts);
  return std::span(counts).subspan((iteration * num_layers + layer) * experts, experts);
}

BalanceRow MakeRow(const std::string& name, const std::vector<ReplayedIteration>& iterations,
                   const Recording& recording) {
  BalanceRow row{.name = name};
  Replayed whole, settled;
  const size_t num_domains = recording.domains.back() + 1;
  std::vector<std::vector<int32_t>> fetched(num_domains,
                                            std::vector<int32_t>(recording.num_layers));
  for (size_t i = 0; i < iterations.size(); ++i) {
    whole.iterations.push_back(iterations[i]);
    if (recording.IndexInDomain(i) >= kSettled) settled.iterations.push_back(iterations[i]);
    row.fetched += iterations[i].fetched_slots;
    const std::vector<int32_t>& by_layer = iterations[i].layer_fetched_slots;
    for (size_t l = 0; l < by_layer.size(); ++l) fetched[recording.domains[i]][l] += by_layer[l];
  }
  row.whole = whole.MeanImbalance();
  row.settled = settled.MeanImbalance();
  for (size_t domain = 1; domain < num_domains; ++domain) {
    const std::vector<int32_t>& by_layer = fetched[domain];
    const double sum = std::accumulate(by_layer.begin(), by_layer.end(), 0.0);
    row.mean_fetched = std::max(row.mean_fetched, sum / static_cast<double>(by_layer.size()));
    row.most_fetched = std::max(row.most_fetched, std::ranges::max(by_layer));
  }
  return row;
}

void PrintHeading() {
  std::printf("imbalance by tokens%26s %8s %8s %9s %6s\n", "whole", "from 5th", "fetched",
              "per layer", "most");
}

void PrintRow(const BalanceRow& row) {
  std::printf("  %-34s %8.4f %8.4f %8lld %9.1f %6d\n", row.name.c_str(), row.whole, row.settled,
              static_cast<long long>(row.fetched), row.mean_fetched, row.most_fetched);
}

std::vector<eplb::Placement> OfflinePlan(const Recording& recording, int32_t num_slots) {
  std::vector<eplb::Placement> plan;
  for (size_t l = 0; l < recording.num_layers; ++l) {
    std::vector<float> loads(static_cast<size_t>(recording.num_experts), 0.0F);
    for (size_t i = 0; i < recording.num_iterations() && recording.domains[i] == 0; ++i)
      for (size_t e = 0; e < loads.size(); ++e)
        loads[e] += static_cast<float>(recording.Row(i, l)[e]);
    plan.push_back(eplb::TensorRtLlmPlacement(loads, num_slots, recording.num_ranks));
  }
  return plan;
}

BalanceRow Simulate(const Recording& recording, int32_t num_slots,
                    int32_t max_fetched_slots_per_iter) {
  const std::vector<eplb::Placement> contiguous(
      recording.num_layers,
      eplb::ContiguousPlacement(recording.num_experts, num_slots, recording.num_ranks));
  const auto replay = [&](const char* name, const rebalance::OnlineOptions& online,
                          const std::vector<eplb::Placement>& start, ReplaySplit split) {
    const BalanceRow row = MakeRow(
        name, rebalance::Replay(online, start, recording.counts, split).iterations, recording);
    PrintRow(row);
    return row;
  };
  std::printf("%d slots, replayed\n", num_slots);
  const rebalance::OnlineOptions off;
  const rebalance::OnlineOptions tensorrt_llm{.mode = Mode::kTensorRtLlm};
  const std::vector<eplb::Placement> offline = OfflinePlan(recording, num_slots);
  replay("contiguous", off, contiguous, ReplaySplit::kOptimal);
  replay("tensorrt_llm offline, even", off, offline, ReplaySplit::kEven);
  replay("tensorrt_llm offline, optimal", off, offline, ReplaySplit::kOptimal);
  replay("tensorrt_llm online, even", tensorrt_llm, contiguous, ReplaySplit::kEven);
  replay("tensorrt_llm online, optimal", tensorrt_llm, contiguous, ReplaySplit::kOptimal);
  const BalanceRow repair = replay(
      "repair", {.mode = Mode::kRepair, .max_fetched_slots_per_iter = max_fetched_slots_per_iter},
      contiguous, ReplaySplit::kOptimal);
  // No more fetches than twice repair's: in TensorRT-LLM's favour.
  size_t period = 1;
  BalanceRow sparse;
  do {
    period *= 2;
    sparse = MakeRow(fmt::format("tensorrt_llm every {}, optimal", period),
                     EveryFew(tensorrt_llm, contiguous, recording, period), recording);
  } while (sparse.fetched > 2 * repair.fetched && period < recording.num_iterations());
  PrintRow(sparse);
  PrintRow(MakeRow("clairvoyant greedy, even", Clairvoyant(recording, num_slots), recording));
  return repair;
}

}  // namespace wideload::bench
