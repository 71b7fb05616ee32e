#include "serve/metrics.h"

#include <gtest/gtest.h>

namespace wideload::serve {
namespace {

TEST(Metrics, BucketsAddUp) {
  Histogram histogram({1, 10});
  for (const double value : {0.5, 1.0, 5.0, 100.0}) histogram.Add(value);
  std::string text;
  histogram.Write("x", "a=\"b\"", text);
  EXPECT_EQ(text,
            "wideload_x_bucket{a=\"b\",le=\"1\"} 2\n"
            "wideload_x_bucket{a=\"b\",le=\"10\"} 3\n"
            "wideload_x_bucket{a=\"b\",le=\"+Inf\"} 4\n"
            "wideload_x_sum{a=\"b\"} 106.5\n"
            "wideload_x_count{a=\"b\"} 4\n");
}

TEST(Metrics, NamesOfModelsAreEscaped) {
  const Metrics metrics("a\"b\\c\nd");
  EXPECT_NE(metrics.Text({}, 0, 0).find("model_name=\"a\\\"b\\\\c d\""), std::string::npos);
}

}  // namespace
}  // namespace wideload::serve
