#include "serve/engine_metrics.h"

#include <fmt/format.h>

#include <cmath>

#include "base/memory.h"
#include "rebalance/online_options.h"

namespace wideload::serve {
namespace {

class MetricsWriter {
 public:
  explicit MetricsWriter(const std::string& label) : label_(label) {}

  void Begin(const char* name, const char* type, const char* help) {
    name_ = name;
    text_ += fmt::format("# HELP wideload_{0} {2}\n# TYPE wideload_{0} {1}\n", name, type, help);
  }
  // Of the metric begun; `labels` begin with a comma, or are empty.
  template <class Value>
  void Add(Value value, const std::string& labels = "") {
    text_ += fmt::format("wideload_{}{{{}{}}} {}\n", name_, label_, labels, value);
  }
  template <class Value>
  void One(const char* name, const char* type, const char* help, Value value) {
    Begin(name, type, help);
    Add(value);
  }
  std::string text() { return std::move(text_); }

 private:
  const std::string& label_;
  std::string name_;
  std::string text_;
};

std::string LayerLabel(int32_t layer) { return fmt::format(",layer=\"{}\"", layer); }

void WriteIterations(const runtime::EngineCourse& course, const runtime::EngineOptions& options,
                     double kv_usage, MetricsWriter& out) {
  const runtime::GroupIteration& last = course.last;
  out.One("iteration_seconds_total", "counter", "Time that iterations took.", course.total.seconds);
  out.One("iteration_tokens_total", "counter",
          "Tokens computed in iterations, of prompts and generated ones.",
          course.total.prompt_tokens + course.total.generated_tokens);
  out.One("num_scheduled_requests", "gauge", "Sequences in the last iteration.", last.num_requests);
  out.One("num_context_requests", "gauge", "Of these, those whose prompt was computed.",
          last.num_prompt_requests);
  out.One("num_generation_requests", "gauge", "Of these, those that generated.",
          last.num_requests - last.num_prompt_requests);
  out.One("context_tokens", "gauge", "Tokens of prompts in the last iteration.",
          last.num_prompt_tokens);
  const int64_t max_blocks = int64_t{options.layout.dp} * options.layout.cp *
                             options.num_micro_batches * options.num_kv_blocks;
  const auto used = static_cast<int64_t>(std::llround(kv_usage * static_cast<double>(max_blocks)));
  out.One("kv_cache_max_blocks", "gauge", "Blocks of the KV caches of all groups of ranks.",
          max_blocks);
  out.One("kv_cache_used_blocks", "gauge", "Of these, those in use.", used);
  out.One("kv_cache_free_blocks", "gauge", "Of these, those that are free.", max_blocks - used);
  out.Begin("config_info", "gauge", "How the server runs, as labels.");
  out.Add(1, fmt::format(",ranks=\"{}\",moe_ep=\"{}\",rebalance=\"{}\"", options.num_ranks(),
                         options.layout.moe_ep, rebalance::ModeName(options.rebalance.mode)));
}

void WriteMemory(const ServedModel& model, MetricsWriter& out) {
  out.Begin("memory_planned_bytes", "gauge", "What the start planned for on this host, by use.");
  for (const checkpoint::MemoryPart& part : model.memory)
    out.Add(part.bytes, fmt::format(",part=\"{}\"", part.name));
  out.One("cpu_memory_usage_bytes", "gauge", "Memory that this process has in use.",
          ResidentBytes());
}

void WriteLayers(const runtime::EngineCourse& course, MetricsWriter& out) {
  out.Begin("eplb_rank_tokens_total", "counter", "Rows that a rank computed in a layer.");
  const auto ranks = static_cast<size_t>(course.num_ranks);
  for (size_t i = 0; i < course.computed_rows.size(); ++i)
    out.Add(course.computed_rows[i],
            LayerLabel(course.layers[i / ranks]) +
                fmt::format(",rank=\"{}\"",
                            static_cast<size_t>(course.first_ranks[i / ranks]) + i % ranks));
  const auto by_layer = [&](const char* name, const char* help, const auto& values) {
    out.Begin(name, "counter", help);
    for (size_t l = 0; l < values.size(); ++l) out.Add(values[l], LayerLabel(course.layers[l]));
  };
  by_layer("eplb_layer_imbalance_total",
           "Sum over iterations of max / mean - 1 of the rows that ranks computed.",
           course.imbalance_sums);
  by_layer("eplb_layer_balancedness_total", "Sum over iterations of mean / max of these.",
           course.balancedness_sums);
  by_layer("eplb_moves_total", "Slots that got an expert which their rank did not hold before.",
           course.fetched_slots);
}

void WriteBalancer(const runtime::EngineCourse& course, int64_t expert_bytes, MetricsWriter& out) {
  const rebalance::BalancerFigures& balancer = course.balancer;
  out.One("eplb_balancedness", "gauge",
          "Mean of mean / max of the rows that ranks computed, over layers and iterations.",
          course.exchange.MeanBalancedness());
  out.One("eplb_fetched_slots_total", "counter",
          "Slots that got an expert which their rank did not hold before.", balancer.fetched_slots);
  out.One("eplb_move_bytes_total", "counter", "Bytes of the experts that these slots got.",
          balancer.fetched_slots * expert_bytes);
  out.One("eplb_placement_generation", "gauge", "Changes of placements so far.",
          balancer.num_changes);
  out.One("eplb_late_plans_total", "counter", "Plans that took a later boundary.",
          balancer.num_late);
  out.Begin("eplb_skipped_total", "counter", "Iterations that were not planned for.");
  out.Add(balancer.num_skipped, ",reason=\"planner_busy\"");
  out.One("eplb_plan_seconds_total", "counter", "Thread CPU time of the planner.",
          static_cast<double>(balancer.planning_ns) * 1e-9);
}

void WriteExchange(const runtime::ExchangeFigures& exchange, MetricsWriter& out) {
  out.One("exchange_rows_total", "counter", "Rows sent, one per token and destination rank.",
          exchange.num_rows);
  out.One("exchange_returns_total", "counter", "Results sent back, one per token and expert.",
          exchange.num_returns);
  out.Begin("exchange_wait_seconds_total", "counter",
            "Waits of ranks for each other that were not over at once.");
  for (size_t kind = 0; kind < exchange.waits.size(); ++kind)
    out.Add(
        static_cast<double>(exchange.waits[kind].total_ns) * 1e-9,
        fmt::format(",kind=\"{}\"", runtime::WaitKindName(static_cast<exchange::WaitKind>(kind))));
}

}  // namespace

std::string EngineMetricsText(const runtime::EngineCourse& course, const ServedModel& model,
                              double kv_usage, const std::string& label) {
  MetricsWriter out(label);
  WriteIterations(course, model.engine, kv_usage, out);
  WriteMemory(model, out);
  WriteLayers(course, out);
  WriteBalancer(course, model.expert_bytes, out);
  WriteExchange(course.exchange, out);
  return out.text();
}

}  // namespace wideload::serve
