// Two engines of this process, of which one computes prompts for the other.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

#include "request_answers.h"
#include "runtime/context_engines.h"
#include "runtime/engine.h"
#include "runtime/engine_loop.h"

namespace wideload::testing_support {

// One engine for prompts and one that goes on, on this thread.
struct EnginePair {
  EnginePair(const model::Model& context_model, const EngineOptions& context_options,
             const model::Model& generation_model, const EngineOptions& generation_options,
             std::chrono::milliseconds timeout = kLongTimeout)
      : context(context_model, context_options),
        generation(generation_model, generation_options),
        engines({&context}),
        contexts(engines, runtime::ServerRouting::kRoundRobin),
        loop(generation, nullptr, [this] { return now; }) {
    loop.UseContext(contexts, timeout);
  }
  // Once all requests have ended.
  void ExpectNothingLeft() {
    loop.Step();
    StopContext();
    EXPECT_EQ(context.scheduler().kv_usage(), 0);
    EXPECT_TRUE(context.idle());
    EXPECT_EQ(generation.scheduler().kv_usage(), 0);
    EXPECT_TRUE(generation.idle());
  }

  // Its thread ends leases.
  void StopContext() {
    const auto no_later = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (contexts.loop(0).figures().kv_usage > 0 && std::chrono::steady_clock::now() < no_later)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    contexts.Stop();
    EXPECT_EQ(context.scheduler().num_held(), 0);
  }

  std::chrono::steady_clock::time_point now;
  runtime::Engine context;
  runtime::Engine generation;
  std::vector<runtime::Engine*> engines;
  runtime::ContextEngines contexts;
  runtime::EngineLoop loop;
};

}  // namespace wideload::testing_support
