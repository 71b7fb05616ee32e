#include "serve/engine_metrics.h"

#include <fmt/format.h>

#include <cmath>

#include "base/memory.h"
#include "rebalance/online_options.h"
#include "serve/metric_head.h"

namespace wideload::serve {
namespace {

class MetricsWriter {
 public:
  explicit MetricsWriter(const std::string& label) : label_(label) {}

  void Begin(const MetricName& metric) {
    name_ = metric.name;
    WriteMetricHead(metric, text_);
  }
  // Of the metric begun; `labels` begin with a comma, or are empty.
  template <class Value>
  void Add(Value value, const std::string& labels = "") {
    text_ += fmt::format("wideload_{}{{{}{}}} {}\n", name_, label_, labels, value);
  }
  std::string text() { return std::move(text_); }

 private:
  const std::string& label_;
  std::string name_;
  std::string text_;
};

std::string LayerLabel(int32_t layer) { return fmt::format(",layer=\"{}\"", layer); }

using States = std::span<const EngineState>;

// A metric of each engine.
template <class ValueOf>
void Each(States engines, const MetricName& metric, ValueOf value_of, MetricsWriter& out) {
  out.Begin(metric);
  for (const EngineState& engine : engines) out.Add(value_of(engine), engine.labels);
}

void WriteIterations(States engines, MetricsWriter& out) {
  using State = EngineState;
  const auto each = [&](const MetricName& metric, auto value_of) {
    Each(engines, metric, value_of, out);
  };
  each({"iteration_seconds_total", "counter", "Time that iterations took."},
       [](const State& e) { return e.course.total.seconds; });
  each({"iteration_tokens_total", "counter",
        "Tokens computed in iterations, of prompts and generated ones."},
       [](const State& e) {
         return e.course.total.prompt_tokens + e.course.total.generated_tokens;
       });
  each({"num_scheduled_requests", "gauge", "Sequences in the last iteration."},
       [](const State& e) { return e.course.last.num_requests; });
  each({"num_context_requests", "gauge", "Of these, those whose prompt was computed."},
       [](const State& e) { return e.course.last.num_prompt_requests; });
  each({"num_generation_requests", "gauge", "Of these, those that generated."}, [](const State& e) {
    return e.course.last.num_requests - e.course.last.num_prompt_requests;
  });
  each({"context_tokens", "gauge", "Tokens of prompts in the last iteration."},
       [](const State& e) { return e.course.last.num_prompt_tokens; });
}

void WriteBlocks(States engines, const runtime::EngineOptions& options, MetricsWriter& out) {
  const int64_t max_blocks = int64_t{options.layout.dp} * options.layout.cp *
                             options.num_micro_batches * options.num_kv_blocks;
  const auto used = [&](const EngineState& e) {
    return static_cast<int64_t>(std::llround(e.kv_usage * static_cast<double>(max_blocks)));
  };
  Each(
      engines, {"kv_cache_max_blocks", "gauge", "Blocks of the KV caches of all groups of ranks."},
      [&](const EngineState&) { return max_blocks; }, out);
  Each(engines, {"kv_cache_used_blocks", "gauge", "Of these, those in use."}, used, out);
  Each(
      engines, {"kv_cache_free_blocks", "gauge", "Of these, those that are free."},
      [&](const EngineState& e) { return max_blocks - used(e); }, out);
  out.Begin({"config_info", "gauge", "How the server runs, as labels."});
  out.Add(1, fmt::format(",ranks=\"{}\",moe_ep=\"{}\",rebalance=\"{}\"", options.num_ranks(),
                         options.layout.moe_ep, rebalance::ModeName(options.rebalance.mode)));
}

void WriteMemory(const ServedModel& model, MetricsWriter& out) {
  out.Begin({"memory_planned_bytes", "gauge", "What the start planned for on this host, by use."});
  for (const checkpoint::MemoryPart& part : model.memory)
    out.Add(part.bytes, fmt::format(",part=\"{}\"", part.name));
  out.Begin({"cpu_memory_usage_bytes", "gauge", "Memory that this process has in use."});
  out.Add(ResidentBytes());
}

void WriteLayers(States engines, MetricsWriter& out) {
  out.Begin({"eplb_rank_tokens_total", "counter", "Rows that a rank computed in a layer."});
  for (const auto& [course, kv_usage, labels] : engines) {
    const auto ranks = static_cast<size_t>(course.num_ranks);
    for (size_t i = 0; i < course.computed_rows.size(); ++i)
      out.Add(course.computed_rows[i],
              labels + LayerLabel(course.layers[i / ranks]) +
                  fmt::format(",rank=\"{}\"",
                              static_cast<size_t>(course.first_ranks[i / ranks]) + i % ranks));
  }
  const auto by_layer = [&](const char* name, const char* help, auto values_of) {
    out.Begin({name, "counter", help});
    for (const EngineState& engine : engines) {
      const auto& values = engine.course.*values_of;
      for (size_t l = 0; l < values.size(); ++l)
        out.Add(values[l], engine.labels + LayerLabel(engine.course.layers[l]));
    }
  };
  by_layer("eplb_layer_imbalance_total",
           "Sum over iterations of max / mean - 1 of the rows that ranks computed.",
           &runtime::EngineCourse::imbalance_sums);
  by_layer("eplb_layer_balancedness_total", "Sum over iterations of mean / max of these.",
           &runtime::EngineCourse::balancedness_sums);
  by_layer("eplb_moves_total", "Slots that got an expert which their rank did not hold before.",
           &runtime::EngineCourse::fetched_slots);
}

void WriteBalancer(States engines, int64_t expert_bytes, MetricsWriter& out) {
  using State = EngineState;
  const auto each = [&](const MetricName& metric, auto value_of) {
    Each(engines, metric, value_of, out);
  };
  each({"eplb_balancedness", "gauge",
        "Mean of mean / max of the rows that ranks computed, over layers and iterations."},
       [](const State& e) { return e.course.exchange.MeanBalancedness(); });
  each({"eplb_fetched_slots_total", "counter",
        "Slots that got an expert which their rank did not hold before."},
       [](const State& e) { return e.course.balancer.fetched_slots; });
  each({"eplb_move_bytes_total", "counter", "Bytes of the experts that these slots got."},
       [&](const State& e) { return e.course.balancer.fetched_slots * expert_bytes; });
  each({"eplb_placement_generation", "gauge", "Changes of placements so far."},
       [](const State& e) { return e.course.balancer.num_changes; });
  each({"eplb_late_plans_total", "counter", "Plans that took a later boundary."},
       [](const State& e) { return e.course.balancer.num_late; });
  out.Begin({"eplb_skipped_total", "counter", "Iterations that were not planned for."});
  for (const State& e : engines)
    out.Add(e.course.balancer.num_skipped, e.labels + ",reason=\"planner_busy\"");
  each({"eplb_plan_seconds_total", "counter", "Thread CPU time of the planner."},
       [](const State& e) { return static_cast<double>(e.course.balancer.planning_ns) * 1e-9; });
}

void WriteExchange(States engines, MetricsWriter& out) {
  Each(
      engines, {"exchange_rows_total", "counter", "Rows sent, one per token and destination rank."},
      [](const EngineState& e) { return e.course.exchange.num_rows; }, out);
  Each(
      engines,
      {"exchange_returns_total", "counter", "Results sent back, one per token and expert."},
      [](const EngineState& e) { return e.course.exchange.num_returns; }, out);
  out.Begin({"exchange_wait_seconds_total", "counter",
             "Waits of ranks for each other that were not over at once."});
  for (const EngineState& e : engines)
    for (size_t kind = 0; kind < e.course.exchange.waits.size(); ++kind)
      out.Add(static_cast<double>(e.course.exchange.waits[kind].total_ns) * 1e-9,
              e.labels + fmt::format(",kind=\"{}\"",
                                     runtime::WaitKindName(static_cast<exchange::WaitKind>(kind))));
}

}  // namespace

std::string EngineMetricsText(std::span<const EngineState> engines, const ServedModel& model,
                              const std::string& label) {
  MetricsWriter out(label);
  WriteIterations(engines, out);
  WriteBlocks(engines, model.engine, out);
  WriteMemory(model, out);
  WriteLayers(engines, out);
  WriteBalancer(engines, model.expert_bytes, out);
  WriteExchange(engines, out);
  return out.text();
}

}  // namespace wideload::serve
