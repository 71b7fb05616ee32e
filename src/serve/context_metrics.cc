#include "serve/context_metrics.h"

#include <fmt/format.h>

namespace wideload::serve {
namespace {

struct MetricName {
  const char* name;
  const char* type;
  const char* help;
};

void WriteMetricHead(const MetricName& metric, std::string& text) {
  text += fmt::format("# HELP wideload_{} {}\n# TYPE wideload_{} {}\n", metric.name, metric.help,
                      metric.name, metric.type);
}

}  // namespace

std::string ContextMetricsText(const runtime::HandOverFigures& hand_over,
                               std::span<const runtime::ContextFigures> servers,
                               const std::string& label) {
  std::string text;
  const auto total = [&](const MetricName& metric, auto value) {
    WriteMetricHead(metric, text);
    text += fmt::format("wideload_{}{{{}}} {}\n", metric.name, label, value);
  };
  const auto of_servers = [&](const MetricName& metric, auto value_of) {
    WriteMetricHead(metric, text);
    for (size_t i = 0; i < servers.size(); ++i)
      text += fmt::format("wideload_{}{{{},context=\"{}\"}} {}\n", metric.name, label, i,
                          value_of(servers[i]));
  };
  using Figures = runtime::ContextFigures;
  total({"handed_over_prompts_total", "counter", "Prompts taken over from context servers."},
        hand_over.num_prompts);
  total({"handed_over_bytes_total", "counter", "Bytes of keys and values copied for them."},
        hand_over.num_bytes);
  total({"hand_over_seconds_total", "counter", "Time for which all ranks waited for these copies."},
        static_cast<double>(hand_over.ns) * 1e-9);
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

}  // namespace wideload::serve
