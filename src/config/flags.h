// What a user can say of the engine and of sampling, as it was said: plain values. option_table.h
// has a row for every member.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace wideload::config {

// Who has set an option, by its long name: "command line", or file, line and key. Defaults are not
// in it.
using Sources = std::map<std::string, std::string, std::less<>>;

// Of the engine; a default stands for what was not said.
struct EngineFlags {
  std::string config_file;  // empty: none
  bool allow_unsupported = false;
  std::string model;    // folder; empty: the embedded model
  int32_t threads = 0;  // of a rank; 0: the machine's cores divided by the ranks, at least 1
  std::string device = "cpu";
  std::string kernels = "auto";
  int64_t max_seq_len = 0;      // 0: the model's context
  std::string kv_cache_memory;  // per rank: a size, a fraction of free memory, or empty
  bool enable_prefix_caching = true;
  int64_t max_num_tokens = 2048;
  int64_t max_batch_size = 64;
  bool check_weights = false;
  // layout
  int32_t tp = 0;      // ranks that share attention, with attention_dp all; 0: not said
  int32_t dp = 0;      // groups of them; 0: not said
  int32_t cp = 0;      // such ranks that share a context; 0: not said
  int32_t ep = 0;      // ranks, or groups of moe_tp, that the experts lie on; 0: not said
  int32_t moe_tp = 0;  // ranks among whom each expert is divided; 0: not said
  bool attention_dp = false;
  bool attention_dp_balance = false;  // whether prompts wait until every group has one
  int64_t attention_dp_timeout_iters = 50;
  int64_t attention_dp_batching_wait_iters = 10;
  int32_t pp = 0;                // stages; 0: not said
  std::string pp_partition;      // layers of each stage, "3,2,3"; empty: evenly
  int32_t pp_micro_batches = 0;  // 0: as many as stages
  int32_t num_slots = 0;         // 0: from the placement file, else one per expert
  std::string placement = "contiguous";
  std::string split = "optimal";
  int64_t moe_max_num_tokens = 0;  // 0: all
  std::string moe_mode = "barrier";
  std::string weight_store;  // empty: TRTLLM_EPLB_SHM_NAME of the environment, else moe_shared
  std::string weight_file;   // empty: none
  std::string weight_numa = "off";
  bool weight_huge_pages = false;
  std::string slot_storage = "view";
  int32_t num_spare_slots = 4;      // per rank
  std::string migration_bandwidth;  // per rank and second: a size, or empty
  bool verify_slots = false;
  std::string rebalance;               // empty: repair where layers are to be updated, else off
  int32_t layer_updates_per_iter = 0;  // 0: of the placement file
  int32_t max_fetched_slots_per_iter = 16;
  double deadline_s = 4;
  // statistics
  std::string statistic_path;
  std::string statistic_iter_range;
  bool replace_statistics = false;
  std::string trace;  // file; empty: none
  bool print_iter_log = false;
  bool waits_for_plans = false;  // no option: see rebalance::OnlineOptions::is_waiting
  Sources sources;               // no option
};

// What is not given comes from generation_config.json, then from the defaults.
struct SamplingFlags {
  std::optional<double> temperature, top_p, min_p, repetition_penalty, presence_penalty,
      frequency_penalty;
  std::optional<int32_t> top_k, logprobs;
  uint64_t seed = 0;
  std::optional<int64_t> max_tokens;
  bool ignore_eos = false;
  Sources sources;  // no option
};

}  // namespace wideload::config
