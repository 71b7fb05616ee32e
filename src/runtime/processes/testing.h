// A small engine whose orders tests and fuzzers write and read.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "runtime/engine_options.h"
#include "runtime/scheduler.h"

namespace wideload::runtime {

inline constexpr int64_t kSmallVocab = 50;
// Of layers that see all and layers that see 40 positions.
inline constexpr std::array<int64_t, 2> kSmallWindows = {0, 40};
// Of layers that see all: requests that begin alike share blocks.
inline constexpr std::array<int64_t, 1> kNoWindows = {0};

inline EngineOptions SmallOptions() {
  EngineOptions options;
  options.layout = parallel::DataParallel(2);
  options.layout.pp = 2;
  options.num_micro_batches = 2;
  options.max_num_tokens = 40;
  options.max_batch_size = 4;
  options.num_kv_blocks = 8;  // few: requests are preempted
  options.max_seq_len = 100;
  return options;
}

// The scheduler of an engine with these options.
inline SchedulerOptions SchedulerOptionsOf(const EngineOptions& options,
                                           std::span<const int64_t> windows = kSmallWindows) {
  return {.num_groups = options.layout.dp,
          .max_num_tokens = options.max_num_tokens,
          .max_batch_size = options.max_batch_size,
          .num_kv_blocks = options.num_kv_blocks,
          .kv_windows = {windows.begin(), windows.end()},
          .max_seq_len = options.max_seq_len,
          .num_context_ranks = options.layout.cp,
          .prefix_cache = true};
}

}  // namespace wideload::runtime
