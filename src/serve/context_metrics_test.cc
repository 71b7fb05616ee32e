#include "serve/context_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wideload::serve {
namespace {

using testing::HasSubstr;

TEST(ContextMetrics, TellOfTheHandOverAndOfEachServer) {
  const runtime::ContextFigures servers[] = {{.num_held = 2, .num_prompts = 9, .kv_usage = 0.5},
                                             {.num_waiting = 3, .is_running = false}};
  const std::string text = ContextMetricsText(
      {.num_prompts = 4, .num_bytes = 1000, .ns = 1'500'000'000}, 6, servers, "model_name=\"m\"");
  for (const char* const line :
       {"wideload_handed_over_prompts_total{model_name=\"m\"} 4\n",
        "wideload_handed_over_bytes_total{model_name=\"m\"} 1000\n",
        "wideload_hand_over_seconds_total{model_name=\"m\"} 1.5\n",
        "wideload_retried_requests_total{model_name=\"m\"} 6\n",
        "wideload_context_up{model_name=\"m\",context=\"0\"} 1\n",
        "wideload_context_up{model_name=\"m\",context=\"1\"} 0\n",
        "wideload_context_prompts_total{model_name=\"m\",context=\"0\"} 9\n",
        "wideload_context_num_prompts_held{model_name=\"m\",context=\"0\"} 2\n",
        "wideload_context_num_requests_waiting{model_name=\"m\",context=\"1\"} 3\n",
        "wideload_context_kv_cache_usage_perc{model_name=\"m\",context=\"0\"} 0.5\n",
        "# TYPE wideload_context_up gauge\n"})
    EXPECT_THAT(text, HasSubstr(line));
}

TEST(ContextMetrics, TellOfEachServerThatGenerates) {
  const GenerationState servers[] = {{.figures = {.num_running = 3,
                                                  .kv_usage = 0.25,
                                                  .hand_over = {.num_prompts = 7},
                                                  .num_own_prompts = 5}},
                                     {.is_running = false}};
  const std::string text = GenerationMetricsText(servers, "model_name=\"m\"");
  for (const char* const line :
       {"wideload_generation_up{model_name=\"m\",generation=\"0\"} 1\n",
        "wideload_generation_up{model_name=\"m\",generation=\"1\"} 0\n",
        "wideload_generation_handed_over_prompts_total{model_name=\"m\",generation=\"0\"} 7\n",
        "wideload_generation_own_prompts_total{model_name=\"m\",generation=\"0\"} 5\n",
        "wideload_generation_num_requests_running{model_name=\"m\",generation=\"0\"} 3\n",
        "wideload_generation_kv_cache_usage_perc{model_name=\"m\",generation=\"0\"} 0.25\n",
        "# TYPE wideload_generation_up gauge\n"})
    EXPECT_THAT(text, HasSubstr(line));
}

}  // namespace
}  // namespace wideload::serve
