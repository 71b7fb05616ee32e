// Which of several servers gets a request, its prompt to compute or its answer to generate: by
// turns, by load, or by what each was given before. Thread-safe.
#pragma once

#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/engine_options.h"

namespace wideload::runtime {

// How a server is chosen.
enum class ServerRouting {
  kRoundRobin,     // the next one in turn
  kLoadBalancing,  // the one with the fewest requests under way
  // The one with the best share of the prompt that it was given before, less its load. Source:
  // TensorRT-LLM's router of this name: matched / prompt - open / max_batch_size.
  kCacheAware,
};

class ServerRouter {
 public:
  // What is known of a server when a request is given out.
  struct Load {
    bool is_running = true;
    int64_t num_open = 0;  // requests under way
  };
  // Of each server: the blocks of its caches, of whose prompts it is taken to know so many, and how
  // many requests it has in an iteration.
  struct Capacity {
    int64_t num_blocks = 0;
    int64_t max_batch_size = 1;
  };
  // That of a server with these options.
  static Capacity CapacityOf(const EngineOptions& options) {
    const int64_t groups = int64_t{options.layout.dp} * options.num_micro_batches;
    return {.num_blocks = options.num_kv_blocks * options.layout.cp * groups,
            .max_batch_size = options.max_batch_size * groups};
  }
  // All servers have the same capacity; none knows a prompt yet.
  ServerRouter(ServerRouting routing, const Capacity& capacity, size_t num_servers);

  // The server for a prompt, which is taken to know it from now on; nothing when none runs. Only
  // prompts of the same salt share anything. loads [num_servers]. With kCacheAware
  // `num_known_tokens` gets how many of the prompt's first tokens that server was given before.
  std::optional<size_t> Choose(std::span<const int32_t> prompt, std::string_view salt,
                               std::span<const Load> loads, int64_t* num_known_tokens = nullptr);

 private:
  // The blocks of prompts that a server was given, those looked for last first.
  struct Known {
    std::list<uint64_t> order;
    std::unordered_map<uint64_t, std::list<uint64_t>::iterator> blocks;
  };
  size_t NumKnown(const Known& known, std::span<const uint64_t> blocks) const;
  void Note(Known& known, std::span<const uint64_t> blocks) const;

  const ServerRouting routing_;
  const Capacity capacity_;
  std::mutex mutex_;  // guards the rest
  uint64_t turn_ = 0;
  std::vector<Known> known_;  // [num_servers] with kCacheAware
};

}  // namespace wideload::runtime
