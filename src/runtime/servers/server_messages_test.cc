#include "runtime/servers/server_messages.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "grammar/json_schema.h"

namespace wideload::runtime {
namespace {

ServerMessage Again(const ServerMessage& message) {
  std::vector<std::byte> bytes;
  WriteMessage(message, bytes);
  return ReadMessage(bytes);
}

TEST(ServerMessages, KeepAllThatAPromptAsksFor) {
  ServerMessage message{.kind = MessageKind::kBegin, .id = 7};
  Request& request = message.job.request;
  request.prompt = {3, 1, 4, 1, 5};
  request.max_tokens = 1;
  request.min_tokens = 1;
  request.sampling = {.temperature = 0.5, .top_k = 3, .seed = 9, .num_logprobs = 2};
  request.eos_ids = {2, 8};
  request.logit_bias = {{.id = 4, .bias = -1}};
  request.index = 12;
  request.cache_salt = "salt";
  request.priority = -3;
  request.first_allowed = {0x12345678u};
  request.keeps_cache = true;
  message.job.prompt_logprobs = 5;
  const ServerMessage again = Again(message);
  EXPECT_EQ(again.kind, MessageKind::kBegin);
  EXPECT_EQ(again.id, 7);
  EXPECT_EQ(again.job.prompt_logprobs, 5);
  const Request& read = again.job.request;
  EXPECT_EQ(read.prompt, request.prompt);
  EXPECT_EQ(read.max_tokens, 1);
  EXPECT_EQ(read.min_tokens, 1);
  EXPECT_EQ(read.sampling.temperature, 0.5);
  EXPECT_EQ(read.sampling.top_k, 3);
  EXPECT_EQ(read.sampling.seed, 9U);
  EXPECT_EQ(read.sampling.num_logprobs, 2);
  EXPECT_EQ(read.eos_ids, request.eos_ids);
  EXPECT_EQ(read.logit_bias, request.logit_bias);
  EXPECT_EQ(read.index, 12U);
  EXPECT_EQ(read.cache_salt, "salt");
  EXPECT_EQ(read.priority, -3);
  EXPECT_EQ(read.first_allowed, request.first_allowed);
  EXPECT_TRUE(read.keeps_cache);
}

TEST(ServerMessages, KeepAllThatCameOfAPrompt) {
  ServerMessage message{.kind = MessageKind::kDelta, .id = 8, .has_lease = true, .group = 3};
  message.delta.token = 11;
  message.delta.logprobs = {{.id = 11, .logprob = -0.5F}, {.id = 2, .logprob = -2}};
  message.delta.prompt_logprobs = {{}, {{.id = 1, .logprob = -1}}};
  message.delta.finish = FinishReason::kLength;
  message.delta.error = "why";
  message.delta.num_cached_tokens = 32;
  message.delta.begun = std::chrono::steady_clock::now() - std::chrono::hours(1);
  message.tables = {{.blocks = {5, 6}, .num_given_back = 0},
                    {.blocks = {0, 9}, .num_given_back = 1}};
  const ServerMessage again = Again(message);
  EXPECT_EQ(again.delta.token, 11);
  ASSERT_EQ(again.delta.logprobs.size(), 2U);
  EXPECT_EQ(again.delta.logprobs[1].logprob, -2);
  ASSERT_EQ(again.delta.prompt_logprobs.size(), 2U);
  EXPECT_TRUE(again.delta.prompt_logprobs[0].empty());
  EXPECT_EQ(again.delta.prompt_logprobs[1][0].id, 1);
  EXPECT_EQ(again.delta.finish, FinishReason::kLength);
  EXPECT_EQ(again.delta.error, "why");
  EXPECT_EQ(again.delta.num_cached_tokens, 32);
  EXPECT_GE(again.delta.begun, message.delta.begun);
  EXPECT_LT(again.delta.begun - message.delta.begun, std::chrono::minutes(10));
  EXPECT_TRUE(again.has_lease);
  EXPECT_EQ(again.group, 3);
  EXPECT_EQ(again.tables, message.tables);
  EXPECT_EQ(Again({.kind = MessageKind::kDelta}).delta.begun,
            std::chrono::steady_clock::time_point());
}

TEST(ServerMessages, KeepWhatAGenerationServerIsGivenAndWhatItTells) {
  ServerMessage given{.kind = MessageKind::kGenerate, .id = 6, .group = 1, .number = 2};
  given.job.request.prompt = {7, 8};
  given.job.request.max_tokens = 99;
  given.job.request.cache_salt = "salt";
  given.delta.token = 5;
  given.delta.num_cached_tokens = 32;
  given.tables = {{.blocks = {3}, .num_given_back = 0}};
  const ServerMessage taken = Again(given);
  EXPECT_EQ(taken.job.request.prompt, given.job.request.prompt);
  EXPECT_EQ(taken.job.request.max_tokens, 99);
  EXPECT_EQ(taken.job.request.cache_salt, "salt");
  EXPECT_EQ(taken.delta.token, 5);
  EXPECT_EQ(taken.delta.num_cached_tokens, 32);
  EXPECT_EQ(std::pair(taken.number, taken.group), std::pair(2, 1));
  EXPECT_EQ(taken.tables, given.tables);

  ServerMessage told{.kind = MessageKind::kEvents};
  told.events = {{.id = 6, .token = 4, .logprobs = {{.id = 4, .logprob = -1}}},
                 {.id = 9,
                  .finish = FinishReason::kError,
                  .error = "why",
                  .logprobs = {},
                  .num_cached_tokens = 3}};
  const std::vector<Event> heard = Again(told).events;
  ASSERT_EQ(heard.size(), 2U);
  EXPECT_EQ(std::pair(heard[0].id, heard[0].token), std::pair(RequestId{6}, 4));
  EXPECT_EQ(heard[0].logprobs.at(0).logprob, -1);
  EXPECT_EQ(heard[0].finish, FinishReason::kNone);
  EXPECT_EQ(std::pair(heard[1].id, heard[1].finish), std::pair(RequestId{9}, FinishReason::kError));
  EXPECT_EQ(heard[1].error, "why");
  EXPECT_EQ(heard[1].num_cached_tokens, 3);

  const EngineFigures figures{.num_running = 3, .kv_usage = 0.5, .hand_over = {.num_bytes = 7}};
  EXPECT_EQ(Again({.kind = MessageKind::kEngineFigures, .engine = figures}).engine, figures);
}

TEST(ServerMessages, KeepTheGrammarOfARequest) {
  EXPECT_EQ(Again({.kind = MessageKind::kGenerate}).grammar, nullptr);
  const auto grammar = std::make_shared<const grammar::Grammar>(grammar::ObjectGrammar());
  ASSERT_FALSE(grammar->calls.empty());
  const ServerMessage again =
      Again({.kind = MessageKind::kGenerate, .grammar = grammar, .grammar_id = 8});
  EXPECT_EQ(again.grammar_id, 8U);
  ASSERT_NE(again.grammar, nullptr);
  EXPECT_EQ(again.grammar->entry, grammar->entry);
  ASSERT_EQ(again.grammar->states.size(), grammar->states.size());
  for (size_t i = 0; i < grammar->states.size(); ++i) {
    const auto &is = again.grammar->states[i], &was = grammar->states[i];
    EXPECT_EQ(std::pair(is.first_edge, is.num_edges), std::pair(was.first_edge, was.num_edges));
    EXPECT_EQ(std::pair(is.first_call, is.num_calls), std::pair(was.first_call, was.num_calls));
    EXPECT_EQ(is.is_end, was.is_end);
  }
  const auto edge = [](const grammar::Grammar::Edge& e) {
    return std::tuple(e.first, e.last, e.target);
  };
  ASSERT_EQ(again.grammar->edges.size(), grammar->edges.size());
  for (size_t i = 0; i < grammar->edges.size(); ++i)
    EXPECT_EQ(edge(again.grammar->edges[i]), edge(grammar->edges[i]));
  ASSERT_EQ(again.grammar->calls.size(), grammar->calls.size());
  for (size_t i = 0; i < grammar->calls.size(); ++i) {
    EXPECT_EQ(again.grammar->calls[i].entry, grammar->calls[i].entry);
    EXPECT_EQ(again.grammar->calls[i].target, grammar->calls[i].target);
  }
}

TEST(ServerMessages, RefuseAGrammarThatNamesWhatItHasNot) {
  const auto refused = [](const auto& spoil) {
    const auto grammar = std::make_shared<grammar::Grammar>(grammar::ObjectGrammar());
    spoil(*grammar);
    EXPECT_THROW(Again({.kind = MessageKind::kBegin, .grammar = grammar}), Error);
  };
  using grammar::Grammar;
  refused([](Grammar& g) { g.entry = static_cast<int32_t>(g.states.size()); });
  refused([](Grammar& g) { g.edges[0].target = -1; });
  refused([](Grammar& g) {
    g.edges.resize(300, {.first = 0, .last = 255, .target = 0});
    g.states[0].first_edge = 0;
    g.states[0].num_edges = 300;
  });
  refused([](Grammar& g) {
    g.edges[0].first = 9;
    g.edges[0].last = 8;
  });
  refused([](Grammar& g) { g.calls[0].entry = static_cast<int32_t>(g.states.size()); });
  refused([](Grammar& g) { g.calls[0].target = -1; });
  refused([](Grammar& g) { g.states[0].num_edges = static_cast<int32_t>(g.edges.size()) + 1; });
  refused([](Grammar& g) { g.states[0].first_edge = -1; });
  refused([](Grammar& g) { g.states[0].num_calls = INT32_MAX; });
  refused([](Grammar& g) { g.states.resize(grammar::kMaxStates + 1); });
}

TEST(ServerMessages, ThatEndTooSoonOrSayNoKindAreRefused) {
  std::vector<std::byte> bytes;
  WriteMessage({.kind = MessageKind::kFigures, .figures = {.num_prompts = 4}}, bytes);
  EXPECT_EQ(ReadMessage(bytes).figures.num_prompts, 4);
  bytes.pop_back();
  EXPECT_THROW(ReadMessage(bytes), Error);
  WriteMessage({.kind = static_cast<MessageKind>(99)}, bytes);
  EXPECT_THROW(ReadMessage(bytes), Error);
  EXPECT_THROW(ReadMessage({}), Error);
}

}  // namespace
}  // namespace wideload::runtime
