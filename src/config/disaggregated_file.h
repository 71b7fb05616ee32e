// The file of `serve disaggregated`: TensorRT-LLM's keys for servers that compute prompts, servers
// that generate, and their front door. Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "config/config_file.h"

namespace wideload::config {

// context_servers or generation_servers.
struct ServerSide {
  ConfigFile engine;  // what its engines are told: keys of its own, and those beside both sides
  int32_t num_instances = 1;
  // router.type
  enum class Router { kRoundRobin, kLoadBalancing, kKvCacheAware };
  Router router = Router::kRoundRobin;
};

// How keys and values come from one process to another: through memory that both map where they are
// on one host, else over TCP; the others force one of the two.
enum class KvTransfer { kAuto, kSharedMemory, kNetwork };

struct DisaggregatedFile {
  std::optional<std::string> hostname;
  std::optional<int32_t> port;
  ServerSide context;
  ServerSide generation;
  KvTransfer kv_transfer = KvTransfer::kAuto;
  int64_t transfer_timeout_ms = 60'000;  // cache_transceiver_config.kv_transfer_timeout_ms
  // How often a request is begun anew whose server has failed.
  int32_t max_retries = 1;
  // conditional_disagg_config.max_local_prefill_length, with a router of generation servers that
  // knows prompts; nothing: context servers compute all prompts.
  std::optional<int64_t> max_local_prefill;
};

// Errors, with source, line and key: those of ParseConfigFile for the options of either side;
// kInvalid for a side that is missing, a value that is not allowed, two timeouts, or prompts that
// generation servers are to compute without a cache or a router that knows them;
// kUnsupported for what TensorRT-LLM knows and this program does not do.
DisaggregatedFile ParseDisaggregatedFile(std::string_view text, std::string_view source);
// Whether a text has servers of either side, so that it is for ParseDisaggregatedFile rather than
// ParseConfigFile. Errors: kInvalid when it is not YAML.
bool HasServerSides(std::string_view text, std::string_view source);
// ParseDisaggregatedFile of a file. Errors: those, and of ReadFile.
DisaggregatedFile ReadDisaggregatedFile(const std::string& path);

}  // namespace wideload::config
