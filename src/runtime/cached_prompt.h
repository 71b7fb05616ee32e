// Keys and values of a prompt on their way from the engine that has computed them to the one that
// goes on: where they lie, how long they stay, and how they come into the caches of another layout.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kv/paged_cache.h"
#include "model/spec.h"
#include "runtime/cache_part.h"
#include "runtime/engine_options.h"
#include "runtime/scheduler.h"

namespace wideload::runtime {

// Where a sequence's keys and values lie: in the caches of the ranks of its group.
struct CachedSequence {
  const model::ModelSpec* spec = nullptr;
  std::vector<CachePart> parts;               // [ranks of the group], as RanksOfGroup has them
  std::vector<const kv::PagedCache*> caches;  // likewise, of its micro-batch; null: out of reach
  std::vector<BlockTable> tables;             // of each block class, the same on all of them
  int32_t group = 0;                          // of its engine's
  int32_t server = -1;                        // of ContextCaches; -1: an engine of this process
};

// The part of a sequence's place that one rank has.
struct CachedPart {
  CachePart part;
  const kv::PagedCache& cache;
  std::span<const BlockTable> tables;
};

// What CopyPart takes from one rank of the group of `from`, whose cache is within reach.
int64_t CopyFrom(const CachedSequence& from, size_t rank, const CachedPart& to,
                 int64_t first_block);

// CopySequence of one rank's part of `to`.
int64_t CopyPart(const CachedSequence& from, const CachedPart& to, int64_t first_block);

// Copies what the blocks of `from` hold, those from `first_block` on that it has not given back,
// into the blocks of `to`, which TakesAll of them and may be of another layout: each rank gets its
// part (MovesOf, PiecesOf). Both are of one model and one set of kernels. Returns the bytes
// written.
int64_t CopySequence(const CachedSequence& from, const CachedSequence& to, int64_t first_block);

// A prompt that an engine has computed and keeps: its blocks stay as they are while this lives.
class PromptLease {
 public:
  // `release` is called once, at the end, on the thread that lets go last.
  PromptLease(CachedSequence prompt, std::function<void()> release)
      : prompt_(std::move(prompt)), release_(std::move(release)) {}
  ~PromptLease() { release_(); }
  PromptLease(const PromptLease&) = delete;
  PromptLease& operator=(const PromptLease&) = delete;

  const CachedSequence& prompt() const { return prompt_; }

 private:
  CachedSequence prompt_;
  std::function<void()> release_;
};

// What came of fetching a prompt.
struct FetchResult {
  int64_t num_bytes = 0;  // that were written
  std::string error;      // why not all were, for people; "": they were
};

// What an engine that goes on with a request gets.
struct ComputedPrompt {
  std::shared_ptr<const PromptLease> lease;
  int32_t token = -1;             // the first one generated
  int64_t num_cached_tokens = 0;  // as Event
};

// What came of prompts that an engine took over.
struct HandOverFigures {
  int64_t num_prompts = 0;
  int64_t num_bytes = 0;
  int64_t ns = 0;  // while all ranks waited
  bool operator==(const HandOverFigures&) const = default;
};

// Why an engine of the first options cannot hand prompts over to one of the second; "" when it can.
std::string HandOverRefusal(const EngineOptions& from, const EngineOptions& to);

}  // namespace wideload::runtime
