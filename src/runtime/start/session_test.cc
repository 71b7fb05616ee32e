#include "runtime/start/session.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "base/error.h"

namespace wideload::runtime {
namespace {

StartSettings Settings(CheckBeforeLoad check = {}) {
  std::string folder =
      std::string(std::getenv("WIDELOAD_SOURCE_DIR")) + "/testdata/models/tiny-qwen3-moe";
  return {.find_folder = [folder = std::move(folder)] { return folder; },
          .version = "0",
          .check = std::move(check)};
}

config::EngineFlags TwoRanks() {
  config::EngineFlags flags;
  flags.ep = 2;
  flags.threads = 1;
  flags.max_seq_len = 64;
  return flags;
}

TEST(StartSession, OptionsBecomeAnEngineOfTheirRanksThatGenerates) {
  Session session = StartSession(nullptr, TwoRanks(), Settings());
  EXPECT_EQ(session.engine->options().num_ranks(), 2);
  EXPECT_EQ(session.context, 64);
  EXPECT_GT(session.model->weight_bytes(), 0);
  Request request;
  request.prompt = {1, 2, 3};
  request.max_tokens = 2;
  session.engine->Submit(std::move(request));
  int num_tokens = 0;
  while (!session.engine->idle())
    for (const Event& event : session.engine->Step()) num_tokens += event.token >= 0 ? 1 : 0;
  EXPECT_EQ(num_tokens, 2);
}

TEST(StartSession, TheEngineIsMadeForNoLongerRequestsThanCanCome) {
  const Session session = StartSession(
      nullptr, TwoRanks(), Settings([](const Session&, const EngineOptions&) { return 20; }));
  EXPECT_EQ(session.engine->options().max_seq_len, 20);
  EXPECT_EQ(session.context, 64);
}

TEST(StartSession, ACheckRefusesBeforeWeightsAreRead) {
  bool has_model = true;
  const auto refuse = [&](const Session& session, const EngineOptions&) -> int64_t {
    has_model = session.model != nullptr;
    Throw(ErrorKind::kInvalid, "no");
  };
  EXPECT_THROW(StartSession(nullptr, TwoRanks(), Settings(refuse)), Error);
  EXPECT_FALSE(has_model);
}

TEST(StartSession, MoreMemoryThanThereIsIsRefusedBeforeTheCheck) {
  config::EngineFlags flags = TwoRanks();
  flags.kv_cache_memory = "512T";
  bool is_checked = false;
  const auto check = [&](const Session&, const EngineOptions&) -> int64_t {
    is_checked = true;
    return 1;
  };
  EXPECT_THROW(StartSession(nullptr, flags, Settings(check)), Error);
  EXPECT_FALSE(is_checked);
}

}  // namespace
}  // namespace wideload::runtime
