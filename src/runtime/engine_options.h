// How an engine is laid out: plain values.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <span>
#include <vector>

#include "compute/exec.h"
#include "device/device.h"
#include "eplb/placement/placement.h"
#include "eplb/split/slot_chooser.h"
#include "kv/block_classes.h"
#include "moe/layout.h"
#include "moe/slot_store.h"
#include "parallel/mapping.h"
#include "rebalance/online_options.h"
#include "runtime/prompt_balance.h"
#include "trace/trace.h"

namespace wideload::runtime {

struct EngineOptions {
  compute::KernelSet kernels = compute::KernelSet::kReference;
  // Of kernels on a device: where all ranks, which are threads, compute, and with what. The weights
  // lie in its memory. Outlives the engine.
  device::Device* device = nullptr;
  const compute::cuda::Kernels* device_kernels = nullptr;
  parallel::Layout layout;            // cp divides 8
  std::vector<int32_t> stage_layers;  // parallel::StageLayers' sizes
  // Of the requests, each with KV blocks of its own, at most layout.pp: while one is in a stage,
  // others are in the others.
  int32_t num_micro_batches = 1;
  int32_t threads_per_rank = 1;
  int64_t max_num_tokens = 2048;            // per group of layout.tp x cp ranks, and micro-batch
  int64_t max_batch_size = 64;              // likewise
  int64_t max_seq_len = 0;                  // at most the model's context
  int64_t num_kv_blocks = 0;                // per rank, and micro-batch
  bool prefix_cache = false;                // SchedulerOptions::prefix_cache
  PromptBalanceOptions prompt_balance;      // likewise
  int32_t num_slots = 0;                    // over layout.moe_ep ranks; 0: one per expert
  std::vector<eplb::Placement> placements;  // [MoE layers]; empty: contiguous
  eplb::SplitMode split = eplb::SplitMode::kOptimal;
  moe::MoeMode moe_mode = moe::MoeMode::kBarrier;
  int64_t moe_max_num_tokens =
      0;  // tokens of all ranks that go through an MoE layer at once; 0: all
  moe::SlotStorage slot_storage = moe::SlotStorage::kView;
  int32_t num_spare_slots = 4;             // of kCopy, per rank
  int64_t migration_bytes_per_second = 0;  // of kCopy, per rank; 0: no limit
  bool verify_slots = false;               // at the start and after each change
  rebalance::OnlineOptions rebalance;      // what changes the placements while serving
  // Whether RankResult::times are measured, which reads a clock six times a layer and chunk.
  bool is_metered = false;
  bool logs_iterations = false;   // a line of each rank to the log
  trace::Trace* trace = nullptr;  // gets the tracks of all threads; outlives the engine
  // Where the KV caches of ranks lie, [ranks], as kv::PagedCache wants it, those of a rank's
  // micro-batches one behind the other; none, or empty of a rank: in memory of its own.
  std::vector<std::span<std::byte>> cache_memory;
  // Longest wait for another rank while no rank gets on with its work.
  std::chrono::milliseconds deadline{4'000};

  int32_t num_ranks() const { return layout.world(); }
  // Tokens of an iteration that a rank sends through the experts at most: the ranks of a group
  // share them.
  int64_t TokensPerRank(int64_t num_tokens) const {
    const int64_t ranks = int64_t{layout.tp} * layout.cp;
    return (num_tokens + ranks - 1) / ranks;
  }
  // Positions of the requests of a group and micro-batch that the caches of its ranks hold.
  int64_t KvTokens() const { return num_kv_blocks * kv::TokensPerBlock(layout.cp); }
  parallel::Shard LayersOf(int32_t stage, int64_t num_layers) const {
    return parallel::StageLayers(num_layers, layout.pp, stage_layers, stage);
  }
  // Positions of these among `moe_layers`, the layers with experts.
  parallel::Shard MoeLayersOf(int32_t stage, int64_t num_layers,
                              std::span<const int32_t> moe_layers) const {
    const parallel::Shard layers = LayersOf(stage, num_layers);
    const auto position = [&](int64_t layer) {
      return std::ranges::lower_bound(moe_layers, static_cast<int32_t>(layer)) - moe_layers.begin();
    };
    return {position(layers.begin), position(layers.end)};
  }
};

}  // namespace wideload::runtime
