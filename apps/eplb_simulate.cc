// wideload eplb simulate: what a placement and a split would have brought on recorded routing.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/thread_pool.h"
#include "command_line.h"
#include "eplb/component_plan.h"
#include "eplb/routing_sampler.h"
#include "eplb/scenario_planner.h"
#include "eplb/simulate.h"
#include "eplb/tensorrt_llm_policy.h"
#include "eplb_commands.h"
#include "statistics/load_files.h"

namespace wideload::apps {
namespace {

using namespace wideload::eplb;

struct Options {
  int32_t ep_size = 0, num_slots = 0, num_experts = 0, top_k = 8, threads = 0;
  std::vector<std::string> policies = {"contiguous", "tensorrt_llm", "scenario"};
  std::vector<std::string> splits = {"even", "optimal"};
  std::string routing, loads, iterations = "tokens:4096", answer_order = "file", record = "half";
  int64_t tokens_per_rank = 128, moves = 10000;
  double wobble = 0.1;
  int32_t recorded = 20, measured = 100, repair = 0;
  uint64_t seed = 1;
  bool json = false;
};

SimulatedPolicy MakePolicy(const std::string& name, const Options& o) {
  const int32_t ranks = o.ep_size;
  const int32_t slots = o.num_slots;
  if (name == "contiguous")
    return {name,
            [=](const Scenarios& s) { return ContiguousPlacement(s.num_experts, slots, ranks); },
            {}};
  if (name == "tensorrt_llm")
    return {name,
            [=](const Scenarios& s) {
              const std::vector<double> mean = s.Mean();
              return TensorRtLlmPlacement(std::vector<float>(mean.begin(), mean.end()), slots,
                                          ranks);
            },
            {}};
  const PlanOptions plan{ranks, slots, o.seed, name == "component" ? 0 : o.moves};
  if (name == "scenario" || name == "component")
    return {name, [=](const Scenarios& s) { return PlanPlacement(s, plan); }, {}};
  Throw(ErrorKind::kInvalid, "--policies has \"{}\"", name);
}

std::vector<int64_t> Numbers(const std::string& text, const std::string& prefix, size_t count) {
  std::vector<int64_t> numbers;
  if (!text.starts_with(prefix)) return numbers;
  size_t at = prefix.size();
  while (at <= text.size() && numbers.size() < count) {
    numbers.push_back(std::atoll(text.c_str() + at));
    at = text.find(':', at);
    if (at == std::string::npos) break;
    ++at;
  }
  return numbers;
}

IterationRule ParseRule(const Options& o) {
  IterationRule rule;
  if (const auto n = Numbers(o.iterations, "tokens:", 1); !n.empty()) {
    rule.tokens = n[0];
  } else {
    const auto d = Numbers(o.iterations, "decode:", 2);
    rule.kind = IterationRule::Kind::kDecode;
    rule.decode_step = d.at(0);
    rule.decode_length = d.at(1);
  }
  if (const auto n = Numbers(o.answer_order, "stride:", 1); !n.empty()) rule.answer_stride = n[0];
  rule.record = o.record == "half"            ? IterationRule::Record::kHalf
                : o.record == "half_per_task" ? IterationRule::Record::kHalfPerTask
                                              : IterationRule::Record::kAlternateAnswers;
  return rule;
}

void Run(const Options& o) {
  SimulateOptions options{o.ep_size, o.num_slots, {}, {}};
  for (const std::string& split : o.splits) options.splits.push_back(ParseSimulatedSplit(split));
  std::vector<SimulatedPolicy> policies;
  for (const std::string& name : o.policies) policies.push_back(MakePolicy(name, o));
  RoutingTrace trace;
  std::vector<std::vector<double>> loads;  // layers with load
  IterationRule rule = ParseRule(o);
  if (!o.routing.empty()) {
    trace = statistics::RoutingTraceOf(statistics::ReadRouting(o.routing, o.num_experts));
    ValidateIterationRule(trace, rule);
  } else {
    for (auto& [layer, row] : statistics::ReadLoads(o.loads).layers)
      if (std::any_of(row.begin(), row.end(), [](double load) { return load > 0; }))
        loads.push_back(row);
    if (loads.empty()) Throw(ErrorKind::kInvalid, "{}: has no layer with any load", o.loads);
  }
  auto layers = o.routing.empty() ? static_cast<int64_t>(loads.size())
                                  : static_cast<int64_t>(trace.num_layers);
  const int64_t step = getenv("STEP") ? atoi(getenv("STEP")) : 1;
  layers = (layers + step - 1) / step;
  std::vector<std::vector<SimulatedRun>> runs(static_cast<size_t>(layers));
  std::vector<std::vector<double>> clairvoyant(static_cast<size_t>(layers));
  std::vector<std::string> errors(static_cast<size_t>(layers));
  std::vector<double> micros(static_cast<size_t>(layers));
  ThreadPool pool("simulate", o.threads > 0 ? o.threads : 2);
  pool.Run(layers, [&](int64_t l0, int) {
    const int64_t l = l0 * step;
    const auto i0 = static_cast<size_t>(l);
    const auto i = static_cast<size_t>(l0);
    try {
      LayerTrace layer;
      if (o.routing.empty()) {
        RoutingSampler sampler(loads[i0], o.top_k, o.seed * 1000003 + i0);
        layer.num_experts = static_cast<int32_t>(loads[i0].size());
        layer.top_k = o.top_k;
        for (int32_t n = 0; n < o.recorded + o.measured; ++n)
          (n < o.recorded ? layer.recorded : layer.measured)
              .push_back(sampler.Sample(o.tokens_per_rank * o.ep_size, o.wobble));
      } else {
        layer = MakeLayerTrace(trace, rule, static_cast<int32_t>(l));
      }
      std::vector<SimulatedPolicy> timed = policies;
      for (SimulatedPolicy& p : timed) {
        p.plan = [&, plan = p.plan](const Scenarios& s) {
          timespec t0, t1;
          clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t0);
          Placement placement = plan(s);
          clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t1);
          micros[i] = static_cast<double>(t1.tv_sec - t0.tv_sec) * 1e6 +
                      static_cast<double>(t1.tv_nsec - t0.tv_nsec) / 1e3;
          return placement;
        };
      }
      runs[i] = SimulateLayer(layer, options, timed);
      clairvoyant[i] = ClairvoyantImbalance(layer, o.ep_size, o.num_slots);
    } catch (const Error& e) {
      errors[i] = e.what();
    }
  });
  for (const std::string& error : errors)
    if (!error.empty()) Throw(ErrorKind::kInvalid, "{}", error);
  for (size_t r = 0; r < runs[0].size(); ++r) {
    std::vector<double> all;
    double fetched = 0;
    for (const auto& layer : runs) {
      all.insert(all.end(), layer[r].imbalance.begin(), layer[r].imbalance.end());
      fetched += layer[r].fetched_slots;
    }
    const MeanAndP99 s = Summarise(all);
    std::printf("%-14s %-20s %.5f p99 %.4f fetched %.2f\n", runs[0][r].policy.c_str(),
                SimulatedSplitName(runs[0][r].split).c_str(), s.mean, s.p99,
                fetched / static_cast<double>(layers));
  }
  std::vector<double> all;
  for (const auto& c : clairvoyant) all.insert(all.end(), c.begin(), c.end());
  std::printf("clairvoyant %.5f  last plan ms %.2f\n", Summarise(all).mean,
              Summarise(micros).mean / 1000);
}

}  // namespace

void AddEplbSimulate(CLI::App& eplb) {
  auto* command = eplb.add_subcommand("simulate", "Replay routing");
  auto o = std::make_shared<Options>();
  command->add_option(Names("ep-size"), o->ep_size)->required();
  command->add_option(Names("num-slots"), o->num_slots)->required();
  command->add_option(Names("policies"), o->policies)->delimiter(',');
  command->add_option(Names("splits"), o->splits)->delimiter(',');
  command->add_option(Names("routing"), o->routing);
  command->add_option(Names("loads"), o->loads);
  command->add_option(Names("iterations"), o->iterations);
  command->add_option(Names("answer-order"), o->answer_order);
  command->add_option(Names("record"), o->record);
  command->add_option(Names("moves"), o->moves);
  command->add_option(Names("seed"), o->seed);
  command->add_option(Names("threads"), o->threads);
  command->add_option(Names("measured"), o->measured);
  command->add_option(Names("recorded"), o->recorded);
  command->callback([o] { Run(*o); });
}

}  // namespace wideload::apps
