// simulate(): what is asked for, layers replayed on several threads, the answer as numpy arrays.
#include "eplb/replay/simulate.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <tuple>

#include "arrays.h"
#include "binding.h"
#include "eplb/policies/policy.h"

namespace wideload::python {
namespace {

using namespace wideload::eplb;

// What simulate() asks for, filled in by Python field by field.
struct SimulateRequest {
  RoutingTrace trace;
  IterationRule rule;
  int32_t num_slots = 0;
  int32_t num_ranks = 1;
  std::vector<std::string> policies;
  std::vector<std::string> splits;
  uint64_t seed = 1;
  int32_t num_threads = 1;

  // expert_ids [tokens, layers, k]; document_tokens add up to tokens.
  void AddTask(const In<uint16_t, 3>& expert_ids, const std::vector<int64_t>& document_tokens) {
    trace.num_layers = static_cast<int32_t>(expert_ids.shape(1));
    trace.top_k = static_cast<int32_t>(expert_ids.shape(2));
    trace.tasks.push_back(
        {document_tokens, {expert_ids.data(), expert_ids.data() + expert_ids.size()}});
  }
  void SetRecord(const std::string& name) {
    using Record = IterationRule::Record;
    if (name == "half")
      rule.record = Record::kHalf;
    else if (name == "half_per_task")
      rule.record = Record::kHalfPerTask;
    else if (name == "alternate_answers")
      rule.record = Record::kAlternateAnswers;
    else
      Throw(ErrorKind::kInvalid,
            "record is \"{}\"; allowed: half, half_per_task, alternate_answers", name);
  }
  void UseTokens(int64_t tokens) {
    rule.kind = IterationRule::Kind::kTokens;
    rule.tokens = tokens;
  }
  void UseDecode(int64_t step, int64_t length) {
    rule.kind = IterationRule::Kind::kDecode;
    rule.decode_step = step;
    rule.decode_length = length;
  }
};

// The named policy of the table, planning from recorded scenarios.
SimulatedPolicy FromTable(const std::string& name, const SimulateRequest& request) {
  const Policy& policy = FindPolicy(name);
  const auto plan = [&policy, slots = request.num_slots, ranks = request.num_ranks,
                     seed = request.seed](const BatchLoads& recorded) {
    return PlanLayer(policy,
                     {.loads = recorded, .num_slots = slots, .num_ranks = ranks, .seed = seed});
  };
  return {name, plan, {}};
}

struct SimulateAnswer {
  std::vector<std::vector<SimulatedRun>> runs;   // [layers][policies x splits]
  std::vector<std::vector<double>> clairvoyant;  // [layers][iterations]
};

SimulateAnswer RunSimulation(const SimulateRequest& request) {
  const RoutingTrace& trace = request.trace;
  ValidateIterationRule(trace, request.rule);
  ValidateSizes(trace.num_experts, request.num_slots, request.num_ranks, "simulate");
  SimulateOptions options{.num_ranks = request.num_ranks, .num_slots = request.num_slots};
  for (const std::string& split : request.splits)
    options.splits.push_back(ParseSimulatedSplit(split));
  std::vector<SimulatedPolicy> policies;
  for (const std::string& name : request.policies) policies.push_back(FromTable(name, request));
  SimulateAnswer answer;
  answer.runs.resize(Index(trace.num_layers));
  answer.clairvoyant.resize(Index(trace.num_layers));
  ForLayers(trace.num_layers, request.num_threads, [&](int64_t l) {
    const LayerTrace layer = MakeLayerTrace(trace, request.rule, static_cast<int32_t>(l));
    answer.runs[Index(l)] = SimulateLayer(layer, options, policies);
    answer.clairvoyant[Index(l)] =
        ClairvoyantImbalance(layer, request.num_ranks, request.num_slots);
  });
  return answer;
}

// [layers, iterations] of rows of equal length.
template <class RowOf>
Out<double> Stack(size_t num_layers, const RowOf& row_of) {
  std::vector<double> values;
  for (size_t l = 0; l < num_layers; ++l)
    values.insert(values.end(), row_of(l).begin(), row_of(l).end());
  const size_t width = values.size() / num_layers;
  return ToNumpy(std::move(values), {num_layers, width});
}

// (policy, split, imbalance [layers, iterations], slots fetched [layers]) of every run.
using SimulatedRow = std::tuple<std::string, std::string, Out<double>, std::vector<double>>;

std::pair<std::vector<SimulatedRow>, Out<double>> Simulate(const SimulateRequest& request) {
  SimulateAnswer answer;
  {
    const nb::gil_scoped_release released;
    answer = RunSimulation(request);
  }
  const size_t layers = answer.runs.size();
  std::vector<SimulatedRow> rows;
  for (size_t r = 0; r < answer.runs[0].size(); ++r) {
    std::vector<double> fetched;
    for (const auto& runs : answer.runs) fetched.push_back(runs[r].fetched_slots);
    rows.emplace_back(
        answer.runs[0][r].policy, SimulatedSplitName(answer.runs[0][r].split),
        Stack(
            layers, [&](size_t l) -> const auto& { return answer.runs[l][r].imbalance; }),
        std::move(fetched));
  }
  return {std::move(rows),
          Stack(
              layers, [&](size_t l) -> const auto& { return answer.clairvoyant[l]; })};
}

}  // namespace

void BindSimulate(nb::module_& m) {
  nb::class_<SimulateRequest>(m, "SimulateRequest")
      .def(nb::init<>())
      .def_rw("num_slots", &SimulateRequest::num_slots)
      .def_rw("num_ranks", &SimulateRequest::num_ranks)
      .def_rw("policies", &SimulateRequest::policies)
      .def_rw("splits", &SimulateRequest::splits)
      .def_rw("seed", &SimulateRequest::seed)
      .def_rw("num_threads", &SimulateRequest::num_threads)
      .def_prop_rw(
          "num_experts", [](const SimulateRequest& r) { return r.trace.num_experts; },
          [](SimulateRequest& r, int32_t n) { r.trace.num_experts = n; })
      .def_prop_rw(
          "answer_stride", [](const SimulateRequest& r) { return r.rule.answer_stride; },
          [](SimulateRequest& r, int64_t n) { r.rule.answer_stride = n; })
      .def("add_task", &SimulateRequest::AddTask, nb::arg("expert_ids"), nb::arg("document_tokens"))
      .def("set_record", &SimulateRequest::SetRecord, nb::arg("name"))
      .def("use_tokens", &SimulateRequest::UseTokens, nb::arg("tokens"))
      .def("use_decode", &SimulateRequest::UseDecode, nb::arg("step"), nb::arg("length"));
  m.def("simulate", Simulate, nb::arg("request"));
}

}  // namespace wideload::python
