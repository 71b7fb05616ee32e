#include "runtime/scheduler.h"

#include <algorithm>

#include "base/error.h"

namespace wideload::runtime {
namespace {

bool Contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// The first whole blocks of the sequence.
kv::Prefix PrefixOf(const Sequence& sequence, int64_t num_blocks) {
  return {.salt = sequence.request.cache_salt,
          .tokens = sequence.tokens,
          .hashes = std::span(sequence.block_hashes).first(static_cast<size_t>(num_blocks))};
}

}  // namespace

std::string RefusalReason(const Request& request, const SchedulerOptions& options) {
  const auto length = static_cast<int64_t>(request.prompt.size());
  if (length == 0) return "the prompt is empty; at least one token is needed";
  if (request.max_tokens < 0)
    return fmt::format("max_tokens is {}; it must be 0 or more", request.max_tokens);
  if (length > options.max_seq_len)
    return fmt::format("the prompt has {} tokens; at most {} (max_seq_len) are allowed", length,
                       options.max_seq_len);
  if (request.max_tokens > options.max_seq_len - length)
    return fmt::format(
        "the prompt has {} tokens and max_tokens is {}; together at most {} (max_seq_len) are "
        "allowed",
        length, request.max_tokens, options.max_seq_len);
  const int64_t needed = length + request.max_tokens;
  if (options.BlocksFor(needed) > options.num_kv_blocks)
    return fmt::format(
        "the request needs KV for {} tokens; the cache of {} holds {} (raise kv-cache-memory)",
        needed,
        options.num_context_ranks == 1
            ? "a rank"
            : fmt::format("{} ranks that share a context", options.num_context_ranks),
        options.num_kv_blocks * options.block_tokens());
  return "";
}

std::vector<kv::BlockClass> BlockClasses(const SchedulerOptions& options) {
  return kv::BlockClasses(options.kv_windows, options.num_kv_blocks,
                          {.max_batch_size = options.max_batch_size,
                           .max_num_tokens = options.max_num_tokens,
                           .num_ranks = options.num_context_ranks});
}

bool HasPrefixCache(const SchedulerOptions& options) {
  return options.prefix_cache &&
         std::ranges::all_of(options.kv_windows, [](int64_t window) { return window == 0; });
}

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options),
      classes_(BlockClasses(options)),
      has_prefix_cache_(HasPrefixCache(options)) {
  WIDELOAD_CHECK(options.num_groups >= 1 && options.num_micro_batches >= 1 &&
                     options.max_num_tokens >= 1 && options.max_batch_size >= 1,
                 "{} groups, {} tokens, batch {}", options.num_groups, options.max_num_tokens,
                 options.max_batch_size);
  for (int32_t g = 0; g < options.num_groups * options.num_micro_batches; ++g) {
    Group& group = groups_.emplace_back();
    for (const kv::BlockClass& blocks : classes_)
      group.blocks.emplace_back(blocks.num_blocks, options.block_tokens());
  }
  prompt_balances_.assign(static_cast<size_t>(options.num_micro_batches),
                          PromptBalance(options.prompt_balance));
  plan_.groups.resize(static_cast<size_t>(options.num_groups));
  for (auto& entries : plan_.groups) entries.reserve(static_cast<size_t>(options.max_batch_size));
}

std::string Scheduler::Add(RequestId id, Request request) {
  std::string reason = RefusalReason(request, options_);
  if (!reason.empty()) return reason;
  auto sequence = std::make_unique<Sequence>();
  sequence->id = id;
  sequence->tokens = std::move(request.prompt);
  sequence->prompt_length = static_cast<int64_t>(sequence->tokens.size());
  sequence->request = std::move(request);
  sequence->request.prompt = {};
  if (has_prefix_cache_) HashBlocks(*sequence);
  sequence->turn = num_plans_ + sequence->request.priority * kPlansPerPriority;
  sequence->place = waiting_.insert(PlaceIn(waiting_, *sequence), sequence.get());
  WIDELOAD_CHECK(sequences_.emplace(id, std::move(sequence)).second, "request {} is there already",
                 id);
  return "";
}

Sequence& Scheduler::GoOnWith(RequestId id, int32_t token, int64_t num_cached) {
  Sequence& sequence = *sequences_.at(id);
  sequence.tokens.push_back(token);
  sequence.num_cached = num_cached;
  sequence.is_elsewhere = true;
  return sequence;
}

// Before those that come after it. Most come last.
std::list<Sequence*>::iterator Scheduler::PlaceIn(std::list<Sequence*>& list,
                                                  const Sequence& sequence) {
  auto place = list.end();
  while (place != list.begin()) {
    const Sequence& before = **std::prev(place);
    if (std::pair(before.turn, before.id) < std::pair(sequence.turn, sequence.id)) break;
    --place;
  }
  return place;
}

const StepPlan& Scheduler::Plan(int32_t micro_batch) {
  WIDELOAD_CHECK(micro_batch >= 0 && micro_batch < options_.num_micro_batches,
                 "micro-batch {} of {}", micro_batch, options_.num_micro_batches);
  micro_batch_ = micro_batch;
  ++num_plans_;
  admitted_.clear();
  plan_.num_tokens = 0;
  for (auto& entries : plan_.groups) entries.clear();
  for (Group& group : groups_) group.num_promised = 0;
  for (Group& group : Planned()) {
    group.budget = options_.max_num_tokens;
    group.has_prompts = false;
  }
  const auto prompts_first = [](const Group& group) { return group.num_starved >= kMaxStarved; };
  for (Group& group : Planned())
    if (!prompts_first(group)) PlanRunning(group, true);
  if (!HoldsPrompts()) {
    for (Group& group : Planned()) PlanRunning(group, false);
    AdmitWaiting();
  }
  for (Group& group : Planned())
    if (prompts_first(group)) PlanRunning(group, true);
  for (auto& entries : plan_.groups) {
    std::erase_if(entries, [](const PlanEntry& entry) {
      return entry.count == 0;
    });  // preempted after planning
    for (const PlanEntry& entry : entries) plan_.num_tokens += entry.count;
  }
  for (Group& group : Planned()) NoteStarved(group);
  return plan_;
}

// Of the micro-batch. Requests whose prompts were computed elsewhere wait for nobody.
bool Scheduler::HoldsPrompts() {
  if (!options_.prompt_balance.enable_balance) return false;
  if (!waiting_.empty() && waiting_.front()->is_elsewhere) return false;
  GroupsWork work{.num_groups = options_.num_groups, .num_waiting = num_waiting()};
  for (const Group& group : Planned()) {
    const auto has = [&](bool decodes) {
      return std::ranges::any_of(
          group.running, [&](const Sequence* s) { return (s->num_uncomputed() == 1) == decodes; });
    };
    work.num_with_prompts += has(false) ? 1 : 0;
    work.num_with_decodes += has(true) ? 1 : 0;
    work.num_full += std::ssize(group.running) < options_.max_batch_size ? 0 : 1;
  }
  return prompt_balances_[static_cast<size_t>(micro_batch_)].HoldsPrompts(work);
}

void Scheduler::NoteStarved(Group& group) {
  const bool is_wanted =
      !waiting_.empty() || std::any_of(group.running.begin(), group.running.end(),
                                       [](const Sequence* s) { return s->num_uncomputed() > 1; });
  const bool is_starved = group.budget == 0 && !group.has_prompts && is_wanted;
  group.num_starved = is_starved ? group.num_starved + 1 : 0;
}

void Scheduler::PlanRunning(Group& group, bool decodes) {
  for (auto it = group.running.begin(); it != group.running.end(); ++it) {
    Sequence& sequence = **it;
    if ((sequence.num_uncomputed() == 1) != decodes || sequence.last_plan == num_plans_) continue;
    TryPlan(group, sequence);
    // The last are preempted first: when this one was, nobody comes after it.
    if (sequence.group < 0) return;
  }
}

// False when the budget is used up or the sequence had to give way.
bool Scheduler::TryPlan(Group& group, Sequence& sequence) {
  const int64_t count = std::min(sequence.num_uncomputed(), group.budget);
  if (count == 0 || !EnsureBlocks(group, sequence, sequence.num_computed + count)) return false;
  group.budget -= count;
  group.has_prompts = group.has_prompts || sequence.num_uncomputed() > 1;
  sequence.last_plan = num_plans_;
  const bool last = count == sequence.num_uncomputed();
  EntriesOf(group).push_back({.sequence = &sequence,
                              .start = sequence.num_computed,
                              .count = count,
                              .sample = last && sequence.request.max_tokens > 0});
  return true;
}

bool Scheduler::EnsureBlocks(Group& group, Sequence& sequence, int64_t num_positions) {
  const auto needed = static_cast<size_t>(options_.BlocksFor(num_positions));
  while (sequence.tables.front().blocks.size() < needed) {
    if (AllocateBlocks(group, sequence)) continue;
    Sequence* last = group.running.back();
    Preempt(group, *last);
    if (last == &sequence) return false;
  }
  return true;
}

// One more block of every class, or of none.
bool Scheduler::AllocateBlocks(Group& group, Sequence& sequence) {
  for (const kv::BlockPool& blocks : group.blocks)
    if (blocks.num_available() == 0) return false;
  for (size_t c = 0; c < group.blocks.size(); ++c)
    sequence.tables[c].blocks.push_back(group.blocks[c].Allocate());
  return true;
}

void Scheduler::GiveBack(Group& group, Sequence& sequence) {
  for (size_t c = 0; c < group.blocks.size(); ++c) {
    BlockTable& table = sequence.tables[c];
    const int64_t behind =
        kv::NumBlocksBehind(classes_[c].window, sequence.num_computed, options_.num_context_ranks);
    if (behind <= table.num_given_back) continue;
    group.blocks[c].Release(std::span(table.blocks)
                                .first(static_cast<size_t>(behind))
                                .subspan(static_cast<size_t>(table.num_given_back)));
    table.num_given_back = behind;
  }
}

void Scheduler::FreeAll(Group& group, Sequence& sequence) {
  for (size_t c = 0; c < group.blocks.size(); ++c) {
    BlockTable& table = sequence.tables[c];
    group.blocks[c].Release(
        std::span(table.blocks).subspan(static_cast<size_t>(table.num_given_back)));
    table.blocks.clear();
    table.num_given_back = 0;
  }
  sequence.num_kept_blocks = 0;
  sequence.kept = -1;
}

void Scheduler::Preempt(Group& group, Sequence& sequence) {
  for (PlanEntry& entry : EntriesOf(group)) {
    if (entry.sequence != &sequence) continue;
    group.budget += entry.count;
    entry.count = 0;
  }
  FreeAll(group, sequence);
  sequence.num_computed = 0;
  sequence.fetch_from = -1;
  sequence.group = -1;
  sequence.last_plan = -1;
  ++sequence.num_preemptions;
  ++num_preemptions_;
  waiting_.splice(PlaceIn(waiting_, sequence), group.running, sequence.place);
}

bool Scheduler::HasRoom(const Group& group) const {
  return static_cast<int64_t>(group.running.size()) < options_.max_batch_size &&
         (!IsPlanned(group) || group.budget > 0);
}

// Of one that no group has the blocks for: whether those behind it may go first. One that gave its
// blocks back has waited enough.
bool Scheduler::MayPass(const Sequence& blocked) const {
  return blocked.num_preemptions == 0 && blocked.num_passed < kMaxPassed &&
         std::any_of(groups_.begin(), groups_.end(),
                     [this](const Group& g) { return IsPlanned(g) && HasRoom(g); });
}

void Scheduler::AdmitWaiting() {
  constexpr int kMaxLooks = 64;  // past those that stay, so that a plan takes bounded time
  Sequence* blocked = nullptr;   // the first
  int num_looks = 0;
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    Sequence& sequence = **it;
    const Place place = ChoosePlace(sequence);
    ++it;
    if (place.group == nullptr) {
      if (blocked == nullptr) blocked = &sequence;
      if (!MayPass(sequence) || !MayPass(*blocked) || ++num_looks > kMaxLooks) return;
      continue;
    }
    if (!IsPlanned(*place.group)) {
      ++sequence.num_deferred;
      place.group->num_promised += 1 + sequence.num_uncomputed();
      if (++num_looks > kMaxLooks) return;
      continue;
    }
    if (IsBeingComputed(*place.group, sequence, place.cached.num_blocks)) {
      if (++num_looks > kMaxLooks) return;
      continue;
    }
    if (blocked != nullptr) ++blocked->num_passed;
    Admit(sequence, place);
    if (blocked != nullptr && !MayPass(*blocked)) return;
  }
}

// For all tokens of a sequence that begins, as far as they are needed at once, beside those that
// are there.
bool Scheduler::HasBlocksFor(const Group& group, const Sequence& sequence,
                             const kv::BlockPool::Match& cached) const {
  const auto length = static_cast<int64_t>(sequence.tokens.size());
  for (size_t c = 0; c < classes_.size(); ++c) {
    int64_t needed = options_.BlocksFor(length) - cached.num_blocks + cached.num_unused;
    if (classes_[c].window > 0) {
      const int64_t at_once = std::min(length, options_.max_num_tokens);
      needed = std::min(needed,
                        options_.BlocksFor(classes_[c].window) + options_.BlocksFor(at_once) + 1);
    }
    if (group.blocks[c].num_available() < needed) return false;
  }
  return true;
}

// The last token is computed always: its logits choose the next one. So is a prompt whose logits
// are asked for.
kv::BlockPool::Match Scheduler::FindCached(const Group& group, const Sequence& sequence) const {
  if (!has_prefix_cache_ || sequence.request.prompt_logits) return {};
  const auto length = static_cast<int64_t>(sequence.tokens.size());
  return group.blocks.front().Find(PrefixOf(sequence, (length - 1) / options_.block_tokens()));
}

// Whether a running request computes the whole block of the sequence, which can share it then. By
// the hash alone: an error costs time, no bit.
bool Scheduler::IsBeingComputed(const Group& group, const Sequence& sequence, int64_t index) const {
  const auto at = static_cast<size_t>(index);
  const int64_t last = std::ssize(sequence.tokens) - 1;
  if (sequence.request.prompt_logits || index >= last / options_.block_tokens() ||
      at >= sequence.block_hashes.size())
    return false;
  return std::ranges::any_of(group.running, [&](const Sequence* running) {
    return at < running->block_hashes.size() && index >= running->num_kept_blocks &&
           running->block_hashes[at] == sequence.block_hashes[at];
  });
}

void Scheduler::UseCached(Group& group, Sequence& sequence, int64_t num_blocks) {
  sequence.kept =
      group.blocks.front().Use(PrefixOf(sequence, num_blocks), sequence.tables.front().blocks);
  sequence.num_kept_blocks = num_blocks;
  sequence.num_computed = num_blocks * options_.block_tokens();
  if (sequence.request.prompt_logits || sequence.num_preemptions > 0 || sequence.is_elsewhere)
    return;
  sequence.num_cached = sequence.num_computed;
  prefix_figures_.num_queries += sequence.prompt_length;
  prefix_figures_.num_hits += sequence.num_cached;
}

void Scheduler::HashBlocks(Sequence& sequence) const {
  std::vector<uint64_t>& hashes = sequence.block_hashes;
  const auto num_tokens = static_cast<size_t>(options_.block_tokens());
  while ((hashes.size() + 1) * num_tokens <= sequence.tokens.size()) {
    const uint64_t before =
        hashes.empty() ? kv::SaltHash(sequence.request.cache_salt) : hashes.back();
    hashes.push_back(kv::BlockHash(
        before, std::span(sequence.tokens).subspan(hashes.size() * num_tokens, num_tokens)));
  }
}

// What full blocks hold is known from now on.
void Scheduler::KeepFull(Group& group, Sequence& sequence) {
  if (!has_prefix_cache_) return;
  HashBlocks(sequence);
  for (int64_t& kept = sequence.num_kept_blocks;
       (kept + 1) * options_.block_tokens() <= sequence.num_computed; ++kept)
    sequence.kept =
        group.blocks.front().Keep(PrefixOf(sequence, kept + 1), sequence.kept,
                                  sequence.tables.front().blocks[static_cast<size_t>(kept)]);
}

void Scheduler::DropPrefixes() {
  for (Group& group : groups_) group.blocks.front().DropUnused();
}

void Scheduler::Admit(Sequence& sequence, const Place& place) {
  Group& group = *place.group;
  const auto needed = sequence.prompt_length + sequence.request.max_tokens;
  sequence.tokens.reserve(static_cast<size_t>(needed));
  sequence.tables.resize(classes_.size());
  for (BlockTable& table : sequence.tables)
    table.blocks.reserve(static_cast<size_t>(options_.BlocksFor(needed)));
  if (has_prefix_cache_) {
    sequence.block_hashes.reserve(static_cast<size_t>(needed / options_.block_tokens()));
    UseCached(group, sequence, place.cached.num_blocks);
  }
  if (sequence.is_elsewhere) AwaitPrompt(group, sequence);
  group.running.splice(PlaceIn(group.running, sequence), waiting_, sequence.place);
  sequence.group = IndexOf(group);
  sequence.num_deferred = 0;
  admitted_.push_back(sequence.id);
  group.has_prompts = true;
  WIDELOAD_CHECK(TryPlan(group, sequence), "request {} was admitted without room", sequence.id);
}

// Blocks for what the other cache has of the prompt, behind those that are here already.
void Scheduler::AwaitPrompt(Group& group, Sequence& sequence) {
  sequence.is_elsewhere = false;
  sequence.fetch_from = std::ssize(sequence.tables.front().blocks);
  sequence.num_computed = sequence.prompt_length;
  for (size_t c = 0; c < classes_.size(); ++c) {
    BlockTable& table = sequence.tables[c];
    table.num_given_back =
        kv::NumBlocksBehind(classes_[c].window, sequence.num_computed, options_.num_context_ranks);
    while (std::ssize(table.blocks) < options_.BlocksFor(sequence.prompt_length))
      table.blocks.push_back(
          std::ssize(table.blocks) < table.num_given_back ? -1 : group.blocks[c].Allocate());
  }
}

// The group with the fewest tokens to compute until this sequence's are, its own that are not
// cached there included, among those with a free place, budget, and blocks for all its tokens, so
// that admission does not preempt; ties go to the lowest group.
Scheduler::Place Scheduler::ChoosePlace(const Sequence& sequence) {
  Place best;
  int64_t least = 0;
  const bool may_wait = sequence.num_deferred < options_.num_micro_batches;
  for (Group& group : groups_) {
    if (!HasRoom(group) || !(may_wait || IsPlanned(group))) continue;
    const kv::BlockPool::Match cached = FindCached(group, sequence);
    if (!HasBlocksFor(group, sequence, cached)) continue;
    int64_t tokens = group.num_promised - cached.num_blocks * options_.block_tokens();
    for (const Sequence* running : group.running) tokens += 1 + running->num_uncomputed();
    if (best.group != nullptr && tokens >= least) continue;
    best = {.group = &group, .cached = cached};
    least = tokens;
  }
  return best;
}

FinishReason Scheduler::Complete(const PlanEntry& entry, int32_t token) {
  Sequence& sequence = *entry.sequence;
  sequence.num_computed += entry.count;
  Group& group = groups_[static_cast<size_t>(sequence.group)];
  KeepFull(group, sequence);
  GiveBack(group, sequence);
  if (token >= 0) sequence.tokens.push_back(token);
  if (token >= 0 && Contains(sequence.request.eos_ids, token)) return FinishReason::kStop;
  const auto generated = static_cast<int64_t>(sequence.tokens.size()) - sequence.prompt_length;
  const bool done = sequence.num_uncomputed() <= 1 && generated == sequence.request.max_tokens;
  const bool prompt_only = sequence.request.max_tokens == 0 && sequence.num_uncomputed() > 0;
  return done && !prompt_only ? FinishReason::kLength : FinishReason::kNone;
}

void Scheduler::Hold(RequestId id) {
  Sequence& sequence = *sequences_.at(id);
  WIDELOAD_CHECK(sequence.group >= 0 && !sequence.is_held, "request {} has no blocks to hold", id);
  sequence.is_held = true;
  Group& group = groups_[static_cast<size_t>(sequence.group)];
  held_.splice(held_.end(), group.running, sequence.place);
}

bool Scheduler::Retire(RequestId id) {
  const auto it = sequences_.find(id);
  if (it == sequences_.end()) return false;
  Sequence* sequence = it->second.get();
  if (sequence->group >= 0) {
    Group& group = groups_[static_cast<size_t>(sequence->group)];
    FreeAll(group, *sequence);
    (sequence->is_held ? held_ : group.running).erase(sequence->place);
  } else {
    waiting_.erase(sequence->place);
  }
  sequences_.erase(it);
  return true;
}

int64_t Scheduler::num_running() const {
  int64_t running = 0;
  for (const Group& group : groups_) running += static_cast<int64_t>(group.running.size());
  return running;
}

double Scheduler::kv_usage() const {
  int64_t available = 0;
  for (const Group& group : groups_) available += group.blocks.front().num_available();
  const int64_t total = classes_.front().num_blocks * std::ssize(groups_);
  return total > 0 ? 1 - static_cast<double>(available) / static_cast<double>(total) : 0;
}

const Sequence* Scheduler::Find(RequestId id) const {
  const auto it = sequences_.find(id);
  return it == sequences_.end() ? nullptr : it->second.get();
}

}  // namespace wideload::runtime
