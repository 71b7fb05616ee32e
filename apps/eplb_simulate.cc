// `wideload eplb simulate`: what placements and splits would have brought on recorded routing.
#include <cstdio>
#include <ctime>
#include <exception>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/thread_pool.h"
#include "command_line.h"
#include "eplb/bounds.h"
#include "eplb/policy.h"
#include "eplb/repair.h"
#include "eplb/routing_sampler.h"
#include "eplb/scenario_planner.h"
#include "eplb/simulate.h"
#include "eplb_commands.h"
#include "statistics/load_files.h"

namespace wideload::apps {
namespace {

using namespace eplb;

struct SimulateFlags {
  int32_t ep_size = 0;
  int32_t num_slots = 0;
  int32_t num_experts = 0;
  int32_t top_k = 8;
  std::vector<std::string> policies = {"contiguous", "tensorrt_llm", "scenario"};
  std::vector<std::string> splits = {"even", "optimal", "optimal_fractional"};
  std::string routing, loads;
  std::string iterations = "tokens:4096", answer_order = "file", record = "half";
  int64_t tokens_per_rank = 128;
  double wobble = 0.1;
  int32_t recorded = 20;
  int32_t measured = 100;
  int32_t repair_slots = 0;
  uint64_t seed = 1;
  bool json = false;
};

struct LayerOutcome {
  std::vector<SimulatedRun> runs;
  std::vector<double> clairvoyant;
  double component_bound = 0;
  double floor = 0;
  std::exception_ptr error;
};

double ThreadMicroseconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) / 1e3;
}

// "PREFIX:a[:b]" -> {a, b}. Errors: kInvalid naming the flag.
std::vector<int64_t> NumbersAfter(const std::string& text, const std::string& prefix, size_t count,
                                  const std::string& flag) {
  std::vector<int64_t> numbers;
  const std::string form = prefix + (count == 2 ? ":STEP:LENGTH" : ":N");
  size_t at = prefix.size();
  while (at < text.size() && text[at] == ':') {
    size_t end = at + 1;
    while (end < text.size() && text[end] >= '0' && text[end] <= '9' && end - at <= 12) ++end;
    if (end == at + 1) break;
    numbers.push_back(std::stoll(text.substr(at + 1, end - at - 1)));
    at = end;
  }
  if (at != text.size() || numbers.size() != count)
    Throw(ErrorKind::kInvalid, "{} is \"{}\"; it must be {}", flag, text, form);
  return numbers;
}

IterationRule RuleOf(const SimulateFlags& flags) {
  IterationRule rule;
  if (flags.iterations.starts_with("decode")) {
    rule.kind = IterationRule::Kind::kDecode;
    const auto numbers = NumbersAfter(flags.iterations, "decode", 2, "--iterations");
    rule.decode_step = numbers[0];
    rule.decode_length = numbers[1];
  } else {
    rule.tokens = NumbersAfter(flags.iterations, "tokens", 1, "--iterations")[0];
  }
  if (flags.answer_order != "file")
    rule.answer_stride = NumbersAfter(flags.answer_order, "stride", 1, "--answer-order")[0];
  using Record = IterationRule::Record;
  if (flags.record == "half")
    rule.record = Record::kHalf;
  else if (flags.record == "half_per_task")
    rule.record = Record::kHalfPerTask;
  else if (flags.record == "alternate_answers")
    rule.record = Record::kAlternateAnswers;
  else
    Throw(ErrorKind::kInvalid,
          "--record is \"{}\"; allowed: half, half_per_task, alternate_answers", flags.record);
  return rule;
}

RoutingTrace TraceOf(statistics::Routing routing) {
  RoutingTrace trace{routing.num_layers, routing.top_k, routing.num_experts, {}};
  for (statistics::RoutingTask& task : routing.tasks)
    trace.tasks.push_back({std::move(task.document_tokens), std::move(task.ids)});
  return trace;
}

SimulatedPolicy PolicyOf(const std::string& name, const SimulateFlags& flags) {
  SimulatedPolicy out;
  out.name = name;
  if (name == "scenario") {
    PlanOptions options;
    options.num_ranks = flags.ep_size;
    options.num_slots = flags.num_slots;
    options.seed = flags.seed;
    out.plan = [options](const Scenarios& recorded) { return PlanPlacement(recorded, options); };
  } else {
    const Policy& policy = FindPolicy(name);
    out.plan = [&policy, &flags](const Scenarios& recorded) {
      const std::vector<double> mean = recorded.Mean();
      PolicyInput input;
      input.loads = mean;
      input.num_slots = flags.num_slots;
      input.num_ranks = flags.ep_size;
      input.seed = flags.seed;
      return policy.plan(input);
    };
  }
  if (flags.repair_slots > 0 && name != "contiguous")
    out.repair = [&flags](const Placement& now, const Scenarios& seen) {
      RepairOptions options;
      options.max_fetched_slots = flags.repair_slots;
      options.seed = flags.seed;
      return RepairPlacement(now, seen, options).placement;
    };
  return out;
}

LayerTrace SampledTrace(const SimulateFlags& flags, const std::vector<double>& loads,
                        uint64_t layer) {
  LayerTrace trace{static_cast<int32_t>(loads.size()), flags.top_k, {}, {}};
  RoutingSampler sampler(loads, flags.top_k, flags.seed * 1000003 + layer);
  for (int32_t i = 0; i < flags.recorded + flags.measured; ++i)
    (i < flags.recorded ? trace.recorded : trace.measured)
        .push_back(sampler.Sample(flags.tokens_per_rank * flags.ep_size, flags.wobble));
  return trace;
}

void RunLayer(const SimulateFlags& flags, const LayerTrace& trace, LayerOutcome& outcome) {
  SimulateOptions options;
  options.num_ranks = flags.ep_size;
  options.num_slots = flags.num_slots;
  for (const std::string& split : flags.splits)
    options.splits.push_back(ParseSimulatedSplit(split));
  std::vector<SimulatedPolicy> policies;
  std::vector<double> plan_us(flags.policies.size(), 0.0);
  for (size_t i = 0; i < flags.policies.size(); ++i) {
    policies.push_back(PolicyOf(flags.policies[i], flags));
    policies[i].plan = [plan = policies[i].plan, &us = plan_us[i]](const Scenarios& recorded) {
      const double start = ThreadMicroseconds();
      Placement placement = plan(recorded);
      us = ThreadMicroseconds() - start;
      return placement;
    };
  }
  outcome.runs = SimulateLayer(trace, options, policies);
  for (size_t r = 0; r < outcome.runs.size(); ++r)
    outcome.runs[r].plan_us = plan_us[r / flags.splits.size()];
  outcome.clairvoyant = ClairvoyantImbalance(trace, flags.ep_size, flags.num_slots);
  outcome.component_bound =
      ComponentBound(RecordedScenarios(trace), {flags.num_slots, flags.ep_size});
  outcome.floor = SamplingFloor(static_cast<int64_t>(trace.measured.front().size()), flags.ep_size);
}

std::vector<LayerOutcome> RunLayers(const SimulateFlags& flags) {
  RoutingTrace trace;
  std::vector<std::vector<double>> loads;
  const IterationRule rule = RuleOf(flags);
  if (!flags.routing.empty()) {
    trace = TraceOf(statistics::ReadRouting(flags.routing, flags.num_experts));
    ValidateIterationRule(trace, rule);
  } else {
    for (const auto& [layer, row] : statistics::ReadLoads(flags.loads).layers)
      for (const double load : row)
        if (load > 0) {
          loads.emplace_back(row.begin(), row.end());
          break;
        }
  }
  const size_t layers =
      flags.routing.empty() ? loads.size() : static_cast<size_t>(trace.num_layers);
  if (layers == 0) Throw(ErrorKind::kInvalid, "{} has no layer with load", flags.loads);
  std::vector<LayerOutcome> outcomes(layers);
  ThreadPool pool("simulate", static_cast<int>(std::max(1U, std::thread::hardware_concurrency())));
  pool.Run(static_cast<int64_t>(layers), [&](int64_t l, int) {
    const auto i = static_cast<size_t>(l);
    try {
      RunLayer(flags,
               flags.routing.empty() ? SampledTrace(flags, loads[i], i)
                                     : MakeLayerTrace(trace, rule, static_cast<int32_t>(l)),
               outcomes[i]);
    } catch (...) {
      outcomes[i].error = std::current_exception();
    }
  });
  for (const LayerOutcome& outcome : outcomes)
    if (outcome.error) std::rethrow_exception(outcome.error);
  return outcomes;
}

Json ReportOf(const std::vector<LayerOutcome>& outcomes) {
  const double layers = static_cast<double>(outcomes.size());
  Json results = Json::array();
  for (size_t r = 0; r < outcomes.front().runs.size(); ++r) {
    std::vector<double> all;
    double fetched = 0;
    double plan_us = 0;
    for (const LayerOutcome& outcome : outcomes) {
      const SimulatedRun& run = outcome.runs[r];
      all.insert(all.end(), run.imbalance.begin(), run.imbalance.end());
      fetched += run.fetched_slots / layers;
      plan_us += run.plan_us / layers;
    }
    const MeanAndP99 summary = Summarise(std::move(all));
    results.push_back({{"policy", outcomes.front().runs[r].policy},
                       {"split", SimulatedSplitName(outcomes.front().runs[r].split)},
                       {"imbalance_mean", summary.mean},
                       {"imbalance_p99", summary.p99},
                       {"slots_fetched_per_layer", fetched},
                       {"plan_ms_per_layer", plan_us / 1000}});
  }
  std::vector<double> clairvoyant;
  double floor = 0;
  double component_bound = 0;
  for (const LayerOutcome& outcome : outcomes) {
    clairvoyant.insert(clairvoyant.end(), outcome.clairvoyant.begin(), outcome.clairvoyant.end());
    floor += outcome.floor / layers;
    component_bound += outcome.component_bound / layers;
  }
  return {{"results", results},
          {"layers", outcomes.size()},
          {"iterations", outcomes.front().clairvoyant.size()},
          {"floor", floor},
          {"clairvoyant", Summarise(std::move(clairvoyant)).mean},
          {"component_bound", component_bound}};
}

void PrintReport(const Json& report) {
  std::printf("%-14s %-19s %10s %10s %9s %9s\n", "policy", "split", "imbalance", "p99", "fetched",
              "plan ms");
  for (const Json& r : report["results"])
    std::printf("%-14s %-19s %10.5f %10.4f %9.2f %9.2f\n", r["policy"].get<std::string>().c_str(),
                r["split"].get<std::string>().c_str(), r["imbalance_mean"].get<double>(),
                r["imbalance_p99"].get<double>(), r["slots_fetched_per_layer"].get<double>(),
                r["plan_ms_per_layer"].get<double>());
  std::printf(
      "%d layers, %d iterations measured; static floor %.4f, clairvoyant %.4f, component "
      "bound %.4f\n",
      report["layers"].get<int>(), report["iterations"].get<int>(), report["floor"].get<double>(),
      report["clairvoyant"].get<double>(), report["component_bound"].get<double>());
}

void Simulate(const SimulateFlags& flags) {
  if (flags.routing.empty() == flags.loads.empty())
    Throw(ErrorKind::kInvalid, "give one of --routing FILE and --loads FILE:TENSOR");
  if (flags.recorded < 1 || flags.measured < 1 || flags.tokens_per_rank < 1)
    Throw(ErrorKind::kInvalid,
          "--recorded {}, --measured {} and --tokens-per-rank {} must be 1 or more", flags.recorded,
          flags.measured, flags.tokens_per_rank);
  if (flags.policies.empty() || flags.splits.empty())
    Throw(ErrorKind::kInvalid, "--policies and --splits need at least one name each");
  const Json report = ReportOf(RunLayers(flags));
  if (flags.json)
    std::printf("%s\n", DumpJson(report, 2).c_str());
  else
    PrintReport(report);
}

}  // namespace

void AddEplbSimulate(CLI::App& group) {
  CLI::App* command = group.add_subcommand(
      "simulate", "replay routed tokens: imbalance of policies and splits, causally");
  const auto flags = std::make_shared<SimulateFlags>();
  command->add_option(Names("ep-size"), flags->ep_size, "ranks")->required();
  command->add_option(Names("num-slots"), flags->num_slots, "slots of all ranks")->required();
  command->add_option(Names("policies"), flags->policies, "comma separated")->delimiter(',');
  command
      ->add_option(Names("splits"), flags->splits,
                   "of even, round_robin, optimal, optimal_fractional")
      ->delimiter(',');
  command->add_option(Names("routing"), flags->routing, "safetensors with token-level routing");
  command->add_option(Names("loads"), flags->loads, "FILE:TENSOR, tokens are drawn from it");
  command->add_option(Names("num-experts"), flags->num_experts, "0: 1 + the largest id");
  command->add_option(Names("iterations"), flags->iterations, "tokens:N or decode:STEP:LENGTH");
  command->add_option(Names("answer-order"), flags->answer_order, "file or stride:K");
  command->add_option(Names("record"), flags->record, "half, half_per_task, alternate_answers");
  command->add_option(Names("tokens-per-rank"), flags->tokens_per_rank, "with --loads");
  command->add_option(Names("wobble"), flags->wobble, "with --loads: log-normal sigma");
  command->add_option(Names("recorded"), flags->recorded, "with --loads: iterations");
  command->add_option(Names("measured"), flags->measured, "with --loads: iterations");
  command->add_option(Names("top-k"), flags->top_k, "with --loads: experts per token");
  command->add_option(Names("repair-slots-per-layer"), flags->repair_slots,
                      "fetches per layer and iteration; 0: planned once");
  command->add_option(Names("seed"), flags->seed, "of sampling and search");
  command->add_flag(Names("json"), flags->json, "one JSON document");
  command->callback([flags] { Simulate(*flags); });
}

}  // namespace wideload::apps
