// The first lines of a metric in the text format of Prometheus.
#pragma once

#include <fmt/format.h>

#include <string>

namespace wideload::serve {

struct MetricName {
  const char* name;  // without "wideload_"
  const char* type;
  const char* help;
};

// Adds the lines that describe it.
inline void WriteMetricHead(const MetricName& metric, std::string& text) {
  text += fmt::format("# HELP wideload_{0} {2}\n# TYPE wideload_{0} {1}\n", metric.name,
                      metric.type, metric.help);
}

}  // namespace wideload::serve
