#include "serve/context_metrics.h"

#include <fmt/format.h>

#include "serve/metric_head.h"

namespace wideload::serve {
namespace {

// Of each of the servers `of` a kind, by a label of that name.
template <class State, class ValueOf>
void WriteEach(const MetricName& metric, std::span<const State> servers, const char* of,
               const std::string& label, ValueOf value_of, std::string& text) {
  WriteMetricHead(metric, text);
  for (size_t i = 0; i < servers.size(); ++i)
    text += fmt::format("wideload_{}{{{},{}=\"{}\"}} {}\n", metric.name, label, of, i,
                        value_of(servers[i]));
}

}  // namespace

std::string ContextMetricsText(const runtime::HandOverFigures& hand_over, int64_t num_retries,
                               std::span<const runtime::ContextFigures> servers,
                               const std::string& label) {
  std::string text;
  const auto total = [&](const MetricName& metric, auto value) {
    WriteMetricHead(metric, text);
    text += fmt::format("wideload_{}{{{}}} {}\n", metric.name, label, value);
  };
  const auto of_servers = [&](const MetricName& metric, auto value_of) {
    WriteEach(metric, servers, "context", label, value_of, text);
  };
  using Figures = runtime::ContextFigures;
  total({"handed_over_prompts_total", "counter", "Prompts taken over from context servers."},
        hand_over.num_prompts);
  total({"handed_over_bytes_total", "counter", "Bytes of keys and values copied for them."},
        hand_over.num_bytes);
  total({"hand_over_seconds_total", "counter", "Time for which all ranks waited for these copies."},
        static_cast<double>(hand_over.ns) * 1e-9);
  total({"retried_requests_total", "counter", "Requests begun anew because a server had failed."},
        num_retries);
  of_servers({"context_up", "gauge", "Whether a context server takes prompts, 0 or 1."},
             [](const Figures& f) { return f.is_running ? 1 : 0; });
  of_servers({"context_prompts_total", "counter", "Prompts that a context server has computed."},
             [](const Figures& f) { return f.num_prompts; });
  of_servers({"context_iterations_total", "counter", "Iterations of a context server."},
             [](const Figures& f) { return f.num_iterations; });
  of_servers({"context_num_requests_running", "gauge", "Prompts with a place on a rank there."},
             [](const Figures& f) { return f.num_running; });
  of_servers({"context_num_requests_waiting", "gauge", "Prompts that wait for a place there."},
             [](const Figures& f) { return f.num_waiting; });
  of_servers({"context_num_prompts_held", "gauge", "Computed prompts that were not fetched yet."},
             [](const Figures& f) { return f.num_held; });
  of_servers({"context_kv_cache_usage_perc", "gauge",
              "Share of the blocks of a context server's KV cache in use, 0 to 1."},
             [](const Figures& f) { return f.kv_usage; });
  return text;
}

std::string GenerationMetricsText(std::span<const GenerationState> servers,
                                  const std::string& label) {
  std::string text;
  using State = GenerationState;
  const auto of_servers = [&](const MetricName& metric, auto value_of) {
    WriteEach(metric, servers, "generation", label, value_of, text);
  };
  of_servers({"generation_up", "gauge", "Whether a generation server takes requests, 0 or 1."},
             [](const State& s) { return s.is_running ? 1 : 0; });
  of_servers({"generation_handed_over_prompts_total", "counter",
              "Prompts that a generation server has taken over."},
             [](const State& s) { return s.figures.hand_over.num_prompts; });
  of_servers({"generation_own_prompts_total", "counter",
              "Prompts that a generation server has computed itself."},
             [](const State& s) { return s.figures.num_own_prompts; });
  of_servers({"generation_iterations_total", "counter", "Iterations of a generation server."},
             [](const State& s) { return s.figures.num_iterations; });
  of_servers(
      {"generation_num_requests_running", "gauge", "Sequences with a place on a rank there."},
      [](const State& s) { return s.figures.num_running; });
  of_servers({"generation_num_requests_waiting", "gauge", "Sequences that wait for a place there."},
             [](const State& s) { return s.figures.num_waiting; });
  of_servers({"generation_num_preemptions_total", "counter",
              "Sequences there that gave their blocks back."},
             [](const State& s) { return s.figures.num_preemptions; });
  of_servers({"generation_kv_cache_usage_perc", "gauge",
              "Share of the blocks of a generation server's KV cache in use, 0 to 1."},
             [](const State& s) { return s.figures.kv_usage; });
  return text;
}

}  // namespace wideload::serve
