// Which tokens each group of ranks computes in the next iteration, and where their keys and values
// live. Pure: no threads, clocks or devices; the same calls give the same plans. Every group of
// ranks owns the requests placed on it (attention data parallelism); its ranks share each of them
// (tensor and context parallelism), in one plan and with the same numbers of blocks.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "kv/block_classes.h"
#include "kv/block_pool.h"
#include "runtime/prompt_balance.h"
#include "runtime/request.h"

namespace wideload::runtime {

// How many ranks there are, and what each can hold and compute.
struct SchedulerOptions {
  int32_t num_groups = 1;
  // Of the requests, planned for in turns: each has these groups, with blocks of its own.
  int32_t num_micro_batches = 1;
  int64_t max_num_tokens = 2048;          // per group and plan
  int64_t max_batch_size = 64;            // requests running on a group
  int64_t num_kv_blocks = 0;              // per group; of layers without a window
  std::vector<int64_t> kv_windows = {0};  // of the layers, kv::Windows
  int64_t max_seq_len = 0;                // prompt and generated tokens of one request
  int32_t num_context_ranks = 1;          // of a group, that divide the blocks of its requests
  bool prefix_cache = false;              // where the layers allow it: HasPrefixCache
  PromptBalanceOptions prompt_balance;    // of the groups of a micro-batch

  // Blocks on each rank for so many positions of a request, and the positions of one.
  int64_t BlocksFor(int64_t num_tokens) const {
    return kv::BlocksFor(num_tokens, num_context_ranks);
  }
  int64_t block_tokens() const { return kv::TokensPerBlock(num_context_ranks); }
};

// Whether blocks of ended requests are found again. Not with layers that look back a window only:
// what is behind it is gone.
bool HasPrefixCache(const SchedulerOptions& options);

// Of the prompts of requests that were admitted and may find blocks, in tokens, since the start.
struct PrefixFigures {
  int64_t num_queries = 0;  // tokens looked for
  int64_t num_hits = 0;     // tokens found, which are not computed
  bool operator==(const PrefixFigures&) const = default;

  PrefixFigures operator-(const PrefixFigures& before) const {
    return {num_queries - before.num_queries, num_hits - before.num_hits};
  }
  // Found of those looked for, 0 to 1; 0 where none were.
  double hit_rate() const {
    return num_queries > 0 ? static_cast<double>(num_hits) / static_cast<double>(num_queries) : 0;
  }
};

// Why a request can never run: too long for the context or the KV cache, an empty prompt. "" when
// it can.
std::string RefusalReason(const Request& request, const SchedulerOptions& options);

// The blocks of each class that each rank of a group has.
std::vector<kv::BlockClass> BlockClasses(const SchedulerOptions& options);

// A sequence's blocks of one class: blocks[i] holds positions i * block_tokens() and on, on each of
// the ranks that divide them the next kBlockTokens.
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
  std::vector<BlockTable> tables;  // of each block class, equally long; on `group`
  int64_t num_computed = 0;        // positions whose keys and values are in the cache
  int64_t num_cached = 0;          // of the prompt, that were there when it was first admitted
  int32_t group = -1;              // of all micro-batches; -1: waiting
  int64_t num_preemptions = 0;
  // Of a prompt that was computed elsewhere: the first block whose contents must come before the
  // next iteration; -1: none has to.
  int64_t fetch_from = -1;
  bool is_held = false;  // ended, but for its blocks
  // Of a request with a grammar (constraint.h): where its generated tokens stand, and the bits of
  // the tokens that may come next; empty: all.
  std::optional<grammar::TokenMatcher> matcher;
  grammar::TokenBits allowed;
  // The scheduler's own.
  bool is_elsewhere = false;             // its prompt's keys and values, while it waits
  std::list<Sequence*>::iterator place;  // in the list of its group, or of those that wait
  int64_t turn = 0;                      // those of lower ones come first, then those of lower ids
  int64_t last_plan = -1;                // that has an entry of it
  int64_t num_passed = 0;                // admitted while this one waited before them
  int32_t num_deferred = 0;              // plans in which it was to wait for another micro-batch
  // Of the prefix cache: the hashes of whole blocks of `tokens`, and what the last block holds of
  // those whose contents the group's pool knows.
  std::vector<uint64_t> block_hashes;
  int64_t num_kept_blocks = 0;
  kv::ContentId kept = -1;

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
  std::vector<std::vector<PlanEntry>> groups;  // of the micro-batch
  int64_t num_tokens = 0;

  bool empty() const { return num_tokens == 0; }
};

class Scheduler {
 public:
  // Without requests.
  explicit Scheduler(const SchedulerOptions& options);

  // Takes the request. Returns RefusalReason: a request that can never run is not taken. Ids rise.
  std::string Add(RequestId id, Request request);
  // Says of a request that was added and never planned that its prompt was computed elsewhere, with
  // so many tokens found in a cache there, and gave `token`. When it is admitted it has blocks for
  // the prompt and goes on with the token: what Sequence::fetch_from names must be there first.
  // Preempted, it is computed here from its own tokens.
  Sequence& GoOnWith(RequestId id, int32_t token, int64_t num_cached);

  // Chooses the next iteration's work: decodes first, then prompt chunks, then waiting requests,
  // each in order of their turns. A request's turn is that of its arrival, as if it had come
  // kPlansPerPriority plans later for each step that its priority is higher: nobody waits for ever.
  // A waiting request goes to the group where the fewest tokens are to be computed until its own
  // are: those ahead of it, and those of its own that the group's cache does not hold. It waits
  // while a request computes the next block that it needs and could share there. Where decodes have
  // taken a group's whole budget kMaxStarved times while prompts waited, these go first once. With
  // prompt_balance plans are of decodes only while PromptBalance holds prompts. When
  // a group's blocks run out the last of its requests is preempted: it gives its blocks back and is
  // computed again from its own tokens. Requests behind one for which no group has the blocks are
  // admitted before it, up to kMaxPassed of them; then they wait for it. The plan is of one
  // micro-batch; a request that is better placed in another one waits for that one's plan, but in
  // no more plans than there are micro-batches. Before a micro-batch is planned for again all
  // entries of its plan are completed. Valid until the next call.
  const StepPlan& Plan(int32_t micro_batch = 0);
  // Requests that the last plan gave a place; some had one before and were preempted.
  std::span<const RequestId> admitted() const { return admitted_; }
  static constexpr int64_t kMaxStarved = 8;
  static constexpr int64_t kMaxPassed = 64;
  static constexpr int64_t kPlansPerPriority = 256;

  // After the plan was carried out: `token` (or -1 for none) continues the entry's sequence, and
  // blocks that none of its later positions looks at are free; returns why it ends, if so. Call for
  // every entry, then Retire.
  FinishReason Complete(const PlanEntry& entry, int32_t token);

  // Takes an admitted request out between iterations, but for its blocks, which stay as they are
  // until Retire. It is no running one any more.
  void Hold(RequestId id);

  // Takes a request out at any time between Plan's iteration and the next, finished or not; frees
  // its blocks. Takes as long whatever the number of requests. False if unknown.
  bool Retire(RequestId id);

  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  // Requests on some rank.
  int64_t num_running() const;
  int64_t num_preemptions() const { return num_preemptions_; }
  // Share of the KV blocks of all groups that requests use; of layers without a window.
  double kv_usage() const;
  int64_t num_held() const { return std::ssize(held_); }
  bool idle() const { return std::ssize(sequences_) == num_held(); }
  bool has_prefix_cache() const { return has_prefix_cache_; }
  const PrefixFigures& prefix_figures() const { return prefix_figures_; }
  // Nothing computed so far is found by requests to come, but what running ones hold.
  void DropPrefixes();
  const SchedulerOptions& options() const { return options_; }
  // Null if unknown.
  const Sequence* Find(RequestId id) const;

 private:
  struct Group {
    std::list<Sequence*> running;       // in order of their turns
    std::vector<kv::BlockPool> blocks;  // of each class
    int64_t budget = 0;                 // tokens left in the plan being made
    int64_t num_starved = 0;            // plans in a row whose decodes left waiting prompts nothing
    bool has_prompts = false;           // in the plan being made
    int64_t num_promised = 0;           // tokens of requests that wait for its plan
  };
  // Where a waiting request can begin.
  struct Place {
    Group* group = nullptr;  // null: nowhere
    kv::BlockPool::Match cached;
  };

  static std::list<Sequence*>::iterator PlaceIn(std::list<Sequence*>& list,
                                                const Sequence& sequence);
  bool HoldsPrompts();
  void PlanRunning(Group& group, bool decodes);
  void AdmitWaiting();
  void Admit(Sequence& sequence, const Place& place);
  void AwaitPrompt(Group& group, Sequence& sequence);
  bool MayPass(const Sequence& blocked) const;
  bool HasRoom(const Group& group) const;
  void NoteStarved(Group& group);
  Place ChoosePlace(const Sequence& sequence);
  bool IsPlanned(const Group& group) const {
    return IndexOf(group) / options_.num_groups == micro_batch_;
  }
  std::vector<PlanEntry>& EntriesOf(const Group& group) {
    return plan_.groups[static_cast<size_t>(IndexOf(group) % options_.num_groups)];
  }
  std::span<Group> Planned() {
    const auto count = static_cast<size_t>(options_.num_groups);
    return std::span(groups_).subspan(static_cast<size_t>(micro_batch_) * count, count);
  }
  bool TryPlan(Group& group, Sequence& sequence);
  bool EnsureBlocks(Group& group, Sequence& sequence, int64_t num_positions);
  bool AllocateBlocks(Group& group, Sequence& sequence);
  bool HasBlocksFor(const Group& group, const Sequence& sequence,
                    const kv::BlockPool::Match& cached) const;
  kv::BlockPool::Match FindCached(const Group& group, const Sequence& sequence) const;
  bool IsBeingComputed(const Group& group, const Sequence& sequence, int64_t index) const;
  void UseCached(Group& group, Sequence& sequence, int64_t num_blocks);
  void KeepFull(Group& group, Sequence& sequence);
  void HashBlocks(Sequence& sequence) const;
  void GiveBack(Group& group, Sequence& sequence);
  void FreeAll(Group& group, Sequence& sequence);
  void Preempt(Group& group, Sequence& sequence);
  int32_t IndexOf(const Group& group) const {
    return static_cast<int32_t>(&group - groups_.data());
  }

  SchedulerOptions options_;
  std::vector<kv::BlockClass> classes_;
  std::unordered_map<RequestId, std::unique_ptr<Sequence>> sequences_;
  std::list<Sequence*> waiting_;  // in order of their turns
  std::list<Sequence*> held_;
  std::vector<Group> groups_;                   // [micro-batches * groups]
  std::vector<PromptBalance> prompt_balances_;  // [micro-batches]
  int32_t micro_batch_ = 0;                     // that is planned for
  bool has_prefix_cache_;
  PrefixFigures prefix_figures_;
  StepPlan plan_;
  int64_t num_plans_ = 0;
  int64_t num_preemptions_ = 0;
  std::vector<RequestId> admitted_;
};

}  // namespace wideload::runtime
