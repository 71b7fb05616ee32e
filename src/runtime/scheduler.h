// Which tokens each rank computes in the next iteration, and where their keys and values live.
// Pure: no threads, clocks or devices; the same calls give the same plans. Every rank owns the
// requests placed on it (attention data parallelism).
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "kv/block_allocator.h"
#include "kv/block_classes.h"
#include "runtime/request.h"

namespace wideload::runtime {

// How many ranks there are, and what each can hold and compute.
struct SchedulerOptions {
  int32_t num_ranks = 1;
  int64_t max_num_tokens = 2048;          // per rank and iteration
  int64_t max_batch_size = 64;            // requests running on a rank
  int64_t num_kv_blocks = 0;              // per rank; of layers without a window
  std::vector<int64_t> kv_windows = {0};  // of the layers, kv::Windows
  int64_t max_seq_len = 0;                // prompt and generated tokens of one request
};

// Why a request can never run: too long for the context or the KV cache, an empty prompt. "" when
// it can.
std::string RefusalReason(const Request& request, const SchedulerOptions& options);

// The blocks of each class that a rank has.
std::vector<kv::BlockClass> BlockClasses(const SchedulerOptions& options);

// A sequence's blocks of one class: blocks[i] holds positions i * kBlockTokens and on.
struct BlockTable {
  std::vector<int32_t> blocks;
  int64_t num_given_back = 0;  // at the beginning; their entries mean nothing any more
  bool operator==(const BlockTable&) const = default;
};

// A request on its way. Owned by the scheduler; ranks read it during an iteration.
struct Sequence {
  RequestId id = -1;
  Request request;              // its prompt is in `tokens`, once
  std::vector<int32_t> tokens;  // prompt, then generated
  int64_t prompt_length = 0;
  std::vector<BlockTable> tables;  // of each block class, equally long; on `rank`
  int64_t num_computed = 0;        // positions whose keys and values are in the cache
  int32_t rank = -1;               // -1: waiting
  int64_t num_preemptions = 0;
  // The scheduler's own.
  std::list<Sequence*>::iterator place;  // in the list of its rank, or of those that wait
  int64_t last_plan = -1;                // that has an entry of it
  int64_t num_passed = 0;                // admitted while this one waited before them

  int64_t num_uncomputed() const { return static_cast<int64_t>(tokens.size()) - num_computed; }
};

// One sequence's part of an iteration: positions [start, start + count). `sample`: the last
// position's logits give a token.
struct PlanEntry {
  Sequence* sequence = nullptr;
  int64_t start = 0;
  int64_t count = 0;
  bool sample = false;
};

// What all ranks compute in one iteration.
struct StepPlan {
  std::vector<std::vector<PlanEntry>> ranks;
  int64_t num_tokens = 0;

  bool empty() const { return num_tokens == 0; }
};

class Scheduler {
 public:
  // Without requests.
  explicit Scheduler(const SchedulerOptions& options);

  // Takes the request. Returns RefusalReason: a request that can never run is not taken.
  std::string Add(RequestId id, Request request);

  // Chooses the next iteration's work: decodes first, then prompt chunks in order of admission,
  // then waiting requests, each on the rank with the least work. Where decodes have taken a rank's
  // whole budget kMaxStarved times while prompts waited, these go first once. When a rank's blocks
  // run out its youngest request is preempted: it gives its blocks back and will be computed again
  // from its own tokens. Requests behind one for which no rank has the blocks are admitted before
  // it, up to kMaxPassed of them; then they wait for it. Valid until the next call.
  const StepPlan& Plan();
  static constexpr int64_t kMaxStarved = 8;
  static constexpr int64_t kMaxPassed = 64;

  // After the plan was carried out: `token` (or -1 for none) continues the entry's sequence, and
  // blocks that none of its later positions looks at are free; returns why it ends, if so. Call for
  // every entry, then Retire.
  FinishReason Complete(const PlanEntry& entry, int32_t token);

  // Takes a request out at any time between Plan's iteration and the next, finished or not; frees
  // its blocks. Takes as long whatever the number of requests. False if unknown.
  bool Retire(RequestId id);

  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  // Requests on some rank.
  int64_t num_running() const;
  int64_t num_preemptions() const { return num_preemptions_; }
  // Share of the KV blocks of all ranks that are in use; of layers without a window.
  double kv_usage() const;
  bool idle() const { return sequences_.empty(); }
  const SchedulerOptions& options() const { return options_; }
  // Null if unknown.
  const Sequence* Find(RequestId id) const;

 private:
  struct Rank {
    std::list<Sequence*> running;            // in order of admission
    std::vector<kv::BlockAllocator> blocks;  // of each class
    int64_t budget = 0;                      // tokens left in the plan being made
    int64_t num_starved = 0;   // plans in a row whose decodes left waiting prompts nothing
    bool has_prompts = false;  // in the plan being made
  };

  void PlanRunning(int32_t rank, bool decodes);
  void AdmitWaiting();
  void Admit(Sequence& sequence, Rank& rank);
  bool MayPass(const Sequence& blocked) const;
  bool HasRoom(const Rank& rank) const;
  void NoteStarved(Rank& rank);
  Rank* ChooseRank(const Sequence& sequence);
  bool TryPlan(Rank& rank, Sequence& sequence);
  bool EnsureBlocks(Rank& rank, Sequence& sequence, int64_t num_positions);
  bool AllocateBlocks(Rank& rank, Sequence& sequence);
  bool HasBlocksFor(const Rank& rank, const Sequence& sequence) const;
  void GiveBack(Rank& rank, Sequence& sequence);
  void FreeAll(Rank& rank, Sequence& sequence);
  void Preempt(Rank& rank, Sequence& sequence);
  int32_t IndexOf(const Rank& rank) const { return static_cast<int32_t>(&rank - ranks_.data()); }

  SchedulerOptions options_;
  std::vector<kv::BlockClass> classes_;
  std::unordered_map<RequestId, std::unique_ptr<Sequence>> sequences_;
  std::list<Sequence*> waiting_;
  std::vector<Rank> ranks_;
  StepPlan plan_;
  int64_t num_plans_ = 0;
  int64_t num_preemptions_ = 0;
};

}  // namespace wideload::runtime
