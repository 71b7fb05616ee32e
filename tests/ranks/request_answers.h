// Requests to engines whose prompts others compute, and all that a client sees of them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "runtime/engine_loop.h"
#include "support/random_layout.h"
#include "support/test_engine.h"

namespace wideload::testing_support {

using runtime::Delta;
using runtime::EngineOptions;
using runtime::FinishReason;

inline constexpr std::chrono::milliseconds kLongTimeout{600'000};

// All that a client sees of a request.
struct Answer {
  std::vector<int32_t> tokens;
  std::vector<std::pair<int32_t, float>> logprobs;  // of the prompt's tokens, then of all deltas
  FinishReason finish = FinishReason::kNone;
  std::string error;
  int64_t num_cached = 0;
  bool operator==(const Answer&) const = default;
};

class Answers {
 public:
  explicit Answers(size_t count) : answers_(count) {}

  runtime::Job JobOf(const runtime::Request& request, size_t i, int32_t prompt_logprobs = -1) {
    return {.request = request,
            .text = {},
            .prompt_logprobs = prompt_logprobs,
            .deadline = {},
            .sink = [this, i](const Delta& delta) { Take(i, delta); }};
  }
  bool all_ended() const {
    return std::ranges::all_of(answers_,
                               [](const Answer& a) { return a.finish != FinishReason::kNone; });
  }
  const Answer& operator[](size_t i) const { return answers_[i]; }
  const std::vector<Answer>& all() const { return answers_; }

 private:
  void Take(size_t i, const Delta& delta) {
    Answer& answer = answers_[i];
    ASSERT_EQ(answer.finish, FinishReason::kNone);
    for (const auto& position : delta.prompt_logprobs)
      for (const runtime::TokenLogprob& p : position) answer.logprobs.emplace_back(p.id, p.logprob);
    for (const runtime::TokenLogprob& p : delta.logprobs)
      answer.logprobs.emplace_back(p.id, p.logprob);
    if (delta.token >= 0) answer.tokens.push_back(delta.token);
    if (delta.token >= 0) answer.num_cached = delta.num_cached_tokens;
    answer.finish = delta.finish;
    answer.error = delta.error;
  }
  std::vector<Answer> answers_;
};

inline void RunToEnd(runtime::EngineLoop& loop, const Answers& answers) {
  while (!answers.all_ended()) {
    if (loop.idle()) loop.Wait(std::chrono::milliseconds(10));
    loop.Step();
  }
}

// Some with log probabilities of the prompt, of which every second is greedy.
inline Answers RunAll(runtime::EngineLoop& loop, const std::vector<runtime::Request>& requests) {
  Answers answers(requests.size());
  for (size_t i = 0; i < requests.size(); ++i)
    loop.Submit(answers.JobOf(requests[i], i, i % 3 == 2 ? 2 : -1));
  RunToEnd(loop, answers);
  return answers;
}

inline std::vector<runtime::Request> Requests(const TestModel& model, size_t count, uint64_t seed) {
  std::vector<runtime::Request> requests = DrawRequests(model, count, seed);
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].prompt_logits = false;
    requests[i].sampling.num_logprobs = static_cast<int32_t>(i % 3);
    requests[i].max_tokens = static_cast<int64_t>(i % 5 == 4 ? i % 2 : 3 + i);
    requests[i].min_tokens = i % 2 == 0 ? 0 : requests[i].max_tokens / 2;
  }
  return requests;
}

// The layout of an engine, with as many micro-batches as stages.
struct Side {
  int32_t tp = 1;
  int32_t dp = 1;
  int32_t pp = 1;
  int32_t cp = 1;
  std::vector<int32_t> stage_layers = {};
};
struct Sides {
  Side context;
  Side generation;
};

// Of a model that is loaded for side.tp ranks.
inline EngineOptions OptionsOf(const TestModel& model, const Side& side) {
  EngineOptions options = TestOptions(model.config, compute::AutoKernelSet());
  options.layout = {.tp = side.tp, .dp = side.dp, .cp = side.cp, .pp = side.pp};
  options.stage_layers = side.stage_layers;
  options.num_micro_batches = side.pp;
  options.layout.moe_ep = options.layout.stage();
  const auto experts = static_cast<int32_t>(model.config.num_experts);
  options.num_slots =
      options.layout.moe_ep * std::min(experts, experts / options.layout.moe_ep + 1);
  return options;
}

inline EngineOptions OptionsOf(const TestModel& model, int32_t groups) {
  return OptionsOf(model, Side{.tp = model.tensor_ranks, .dp = groups});
}

// As Requests, and some whose prompts are of more blocks than ranks that share contexts.
inline std::vector<runtime::Request> LongRequests(const TestModel& model, size_t count,
                                                  uint64_t seed) {
  std::vector<runtime::Request> requests = Requests(model, count, seed);
  for (size_t i = 0; i < count; i += 3) {
    std::vector<int32_t>& prompt = requests[i].prompt;
    const std::vector<int32_t> part = prompt;
    while (prompt.size() < 150 + 40 * i) prompt.insert(prompt.end(), part.begin(), part.end());
  }
  return requests;
}

inline runtime::Request PromptOf(int64_t length, int64_t max_tokens) {
  runtime::Request request;
  for (int64_t i = 0; i < length; ++i)
    request.prompt.push_back(static_cast<int32_t>((i * 37 + length) % 311));
  request.max_tokens = max_tokens;
  return request;
}

}  // namespace wideload::testing_support
