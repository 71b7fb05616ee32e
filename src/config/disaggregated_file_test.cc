#include "config/disaggregated_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace wideload::config {
namespace {

using ::testing::HasSubstr;

constexpr std::string_view kSides = "context_servers: {}\ngeneration_servers: {}\n";

std::string Refusal(const std::string& text, ErrorKind kind) {
  try {
    ParseDisaggregatedFile(text, "a.yaml");
    return "";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind) << e.what();
    return e.what();
  }
}

EngineFlags FlagsOf(const ServerSide& side) {
  EngineFlags flags;
  ApplyConfigFile(side.engine, flags);
  return flags;
}

// The keys of TensorRT-LLM's example.
TEST(DisaggregatedFile, GivesEachSideItsKeysAndThoseBesideBoth) {
  const DisaggregatedFile file = ParseDisaggregatedFile(
      "hostname: 0.0.0.0\nport: 8300\nkv_transfer: network\nbackend: pytorch\nmax_batch_size: 9\n"
      "context_servers:\n"
      "  num_instances: 2\n"
      "  router: {type: load_balancing}\n"
      "  tensor_parallel_size: 2\n"
      "  max_num_tokens: 100\n"
      "  cache_transceiver_config: {backend: UCX, kv_transfer_timeout_ms: 700}\n"
      "generation_servers:\n"
      "  num_instances: 3\n"
      "  router: {type: kv_cache_aware}\n"
      "  tensor_parallel_size: 4\n"
      "  enable_attention_dp: true\n"
      "  max_batch_size: 5\n"
      "  cache_transceiver_config: {backend: UCX}\n",
      "a.yaml");
  EXPECT_EQ(file.hostname, "0.0.0.0");
  EXPECT_EQ(file.port, 8300);
  EXPECT_EQ(file.kv_transfer, KvTransfer::kNetwork);
  EXPECT_EQ(file.transfer_timeout_ms, 700);
  EXPECT_EQ(file.context.num_instances, 2);
  EXPECT_EQ(file.context.router, ServerSide::Router::kLoadBalancing);
  EXPECT_EQ(file.generation.num_instances, 3);
  EXPECT_EQ(file.generation.router, ServerSide::Router::kKvCacheAware);
  const EngineFlags context = FlagsOf(file.context);
  EXPECT_EQ(context.tp, 2);
  EXPECT_EQ(context.max_num_tokens, 100);
  EXPECT_EQ(context.max_batch_size, 9);
  EXPECT_EQ(context.sources.at("--max-num-tokens"), "a.yaml:10: max_num_tokens");
  const EngineFlags generation = FlagsOf(file.generation);
  EXPECT_EQ(generation.tp, 4);
  EXPECT_TRUE(generation.attention_dp);
  EXPECT_EQ(generation.max_batch_size, 5);
  EXPECT_EQ(generation.max_num_tokens, EngineFlags().max_num_tokens);
}

TEST(DisaggregatedFile, HasDefaultsForWhatIsNotSaid) {
  const DisaggregatedFile file = ParseDisaggregatedFile(kSides, "a.yaml");
  EXPECT_EQ(file.hostname, std::nullopt);
  EXPECT_EQ(file.context.num_instances, 1);
  EXPECT_EQ(file.context.router, ServerSide::Router::kRoundRobin);
  EXPECT_EQ(file.transfer_timeout_ms, 60'000);
  EXPECT_EQ(file.kv_transfer, KvTransfer::kAuto);
  EXPECT_EQ(file.max_retries, 1);
}

TEST(DisaggregatedFile, KnowsTheRouters) {
  const auto router = [](const std::string& type) {
    return ParseDisaggregatedFile(
               "generation_servers: {}\ncontext_servers: {router: {type: " + type + "}}\n",
               "a.yaml")
        .context.router;
  };
  EXPECT_EQ(router("round_robin"), ServerSide::Router::kRoundRobin);
  EXPECT_EQ(router("load_balancing"), ServerSide::Router::kLoadBalancing);
  EXPECT_EQ(router("kv_cache_aware"), ServerSide::Router::kKvCacheAware);
}

TEST(DisaggregatedFile, SaysWhichPromptsGenerationServersCompute) {
  const auto sides = [](const std::string& generation) {
    return "context_servers: {}\ngeneration_servers: {" + generation + "}\n";
  };
  const std::string aware = sides("router: {type: kv_cache_aware}");
  const auto max = [&](const std::string& value) {
    return ParseDisaggregatedFile(aware + "conditional_disagg_config: " + value + "\n", "a.yaml")
        .max_local_prefill;
  };
  EXPECT_EQ(max("{max_local_prefill_length: 9}"), 9);
  EXPECT_EQ(max("{}"), 0);
  EXPECT_EQ(max("null"), std::nullopt);
  EXPECT_EQ(max("{max_local_prefill_length: null}"), std::nullopt);
  const auto refusal = [](const std::string& file, const std::string& value) {
    return Refusal(file + "conditional_disagg_config: " + value + "\n", ErrorKind::kInvalid);
  };
  EXPECT_THAT(refusal(aware, "3"), HasSubstr("conditional_disagg_config is 3; a map is allowed"));
  EXPECT_THAT(refusal(aware, "{max_local_prefill_length: -1}"),
              HasSubstr("a.yaml:3: conditional_disagg_config.max_local_prefill_length is -1"));
  EXPECT_THAT(refusal(aware, "{max_prefill: 1}"),
              HasSubstr("conditional_disagg_config.max_prefill is unknown"));
  const std::string limit = "{max_local_prefill_length: 9}";
  EXPECT_THAT(refusal(sides("num_instances: 2"), limit),
              HasSubstr("needs generation_servers.router.type: kv_cache_aware"));
  EXPECT_THAT(refusal(sides("router: {type: kv_cache_aware}, "
                            "kv_cache_config: {enable_block_reuse: False}"),
                      limit),
              HasSubstr("a.yaml:2: kv_cache_config.enable_block_reuse is false"));
}

TEST(DisaggregatedFile, RefusesByNameWhatIsWrong) {
  EXPECT_THAT(Refusal("context_servers: {}\n", ErrorKind::kInvalid),
              HasSubstr("generation_servers is missing"));
  EXPECT_THAT(Refusal("context_servers: 3\ngeneration_servers: {}\n", ErrorKind::kInvalid),
              HasSubstr("a.yaml:1: context_servers is 3; a map is allowed"));
  const std::string sides(kSides);
  EXPECT_THAT(Refusal(sides + "port: 70000\n", ErrorKind::kInvalid),
              HasSubstr("a.yaml:3: port is 70000"));
  EXPECT_THAT(Refusal(sides + "max_retries: -1\n", ErrorKind::kInvalid),
              HasSubstr("a.yaml:3: max_retries is -1"));
  EXPECT_EQ(ParseDisaggregatedFile(sides + "max_retries: 3\n", "a.yaml").max_retries, 3);
  EXPECT_THAT(Refusal(sides + "hostnam: a\n", ErrorKind::kInvalid),
              HasSubstr("unknown key \"hostnam\""));
  EXPECT_THAT(Refusal(sides + "kv_transfer: rdma\n", ErrorKind::kInvalid),
              HasSubstr("a.yaml:3: kv_transfer is rdma; supported: auto, shared_memory, network"));
  const auto context = [](const std::string& text) {
    return "generation_servers: {}\ncontext_servers: {" + text + "}\n";
  };
  EXPECT_THAT(Refusal(context("num_instances: 0"), ErrorKind::kInvalid),
              HasSubstr("a.yaml:2: context_servers.num_instances is 0"));
  EXPECT_THAT(Refusal(context("tensor_paralel_size: 2"), ErrorKind::kInvalid),
              HasSubstr("tensor_parallel_size"));
  EXPECT_THAT(Refusal(context("router: {type: nearest}"), ErrorKind::kInvalid),
              HasSubstr("context_servers.router.type is nearest; supported: round_robin"));
  EXPECT_THAT(
      Refusal("generation_servers: {cache_transceiver_config: {kv_transfer_timeout_ms: 2}}\n"
              "context_servers: {cache_transceiver_config: {kv_transfer_timeout_ms: 3}}\n",
              ErrorKind::kInvalid),
      HasSubstr("one holds for both"));
}

TEST(DisaggregatedFile, RefusesByNameWhatIsNotSupported) {
  const std::string sides(kSides);
  for (const char* const text :
       {"schedule_style: generation_first\n", "otlp_config: {otlp_traces_endpoint: a}\n"})
    EXPECT_THAT(Refusal(sides + text, ErrorKind::kUnsupported), HasSubstr("is not supported yet"));
  EXPECT_THAT(Refusal("generation_servers: {}\ncontext_servers: {urls: [\"a:1\"]}\n",
                      ErrorKind::kUnsupported),
              HasSubstr("context_servers.urls: servers of other launches"));
  EXPECT_THAT(Refusal("generation_servers: {num_instances: 65}\ncontext_servers: {}\n",
                      ErrorKind::kInvalid),
              HasSubstr("generation_servers.num_instances is 65"));
}

}  // namespace
}  // namespace wideload::config
