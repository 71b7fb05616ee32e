#include "runtime/engine.h"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "runtime/constraint.h"
#include "runtime/iteration_log.h"
#include "runtime/job_runner.h"

namespace wideload::runtime {
namespace {

void CountEntry(GroupIteration& group, const PlanEntry& entry) {
  const bool decode = entry.start >= entry.sequence->prompt_length;
  ++group.num_requests;
  if (!decode) ++group.num_prompt_requests;
  (decode ? group.num_generated_tokens : group.num_prompt_tokens) += entry.count;
}

constexpr char kBrokenText[] = "a token was sampled that the grammar does not allow";

SchedulerOptions MakeSchedulerOptions(const EngineOptions& options,
                                      std::vector<int64_t> kv_windows = {0}) {
  return {.num_groups = options.layout.dp,
          .num_micro_batches = options.num_micro_batches,
          .max_num_tokens = options.max_num_tokens,
          .max_batch_size = options.max_batch_size,
          .num_kv_blocks = options.num_kv_blocks,
          .kv_windows = std::move(kv_windows),
          .max_seq_len = options.max_seq_len,
          .num_context_ranks = options.layout.cp,
          .prefix_cache = options.prefix_cache,
          .prompt_balance = options.prompt_balance};
}

}  // namespace

// Micro-batches on their way: in step t stage s has batches[(t - s) mod stages]. One that comes out
// of the last stage is planned for again in the next step.
struct Engine::Pipeline {
  std::vector<MicroBatch> batches;           // [stages]
  std::vector<MicroBatch*> stages;           // of each: its batch in this step
  std::vector<parallel::Shard> moe_layers;   // of each: positions among the MoE layers
  std::vector<std::vector<int32_t>> counts;  // routed [batches][MoE layers * experts]
  std::vector<std::vector<int64_t>> rows;    // computed [batches][ranks of a stage * MoE layers]
  int64_t num_steps = 0;
  int64_t num_planned = 0;

  Pipeline(const model::ModelSpec& spec, const EngineOptions& options);
  size_t IndexOf(int64_t step) const {
    const std::ptrdiff_t count = std::ssize(batches);
    return static_cast<size_t>((step % count + count) % count);
  }
  bool is_empty() const {
    return std::ranges::all_of(batches, [](const MicroBatch& batch) { return batch.is_empty(); });
  }
  void Advance() {
    for (size_t s = 0; s < stages.size(); ++s)
      stages[s] = &batches[IndexOf(num_steps - static_cast<int64_t>(s))];
  }
};

Engine::Pipeline::Pipeline(const model::ModelSpec& spec, const EngineOptions& options) {
  const auto num_stages = static_cast<size_t>(options.layout.pp);
  batches.resize(num_stages);
  stages.resize(num_stages);
  counts.resize(num_stages);
  for (MicroBatch& batch : batches) {
    batch.groups.resize(static_cast<size_t>(options.layout.dp));
    for (auto& entries : batch.groups) entries.reserve(static_cast<size_t>(options.max_batch_size));
  }
  rows.assign(num_stages, std::vector<int64_t>(static_cast<size_t>(options.layout.stage()) *
                                               spec.moe.layers.size()));
  for (int32_t s = 0; s < options.layout.pp; ++s)
    moe_layers.push_back(options.MoeLayersOf(s, spec.num_layers(), spec.moe.layers));
}

std::string RefusalReason(const Request& request, const EngineOptions& options,
                          int64_t vocab_size) {
  std::string wrong = InvalidField(request.sampling, vocab_size);
  if (!wrong.empty()) return wrong;
  const auto is_id = [&](int32_t id) { return id >= 0 && id < vocab_size; };
  if (request.min_tokens < 0 || request.min_tokens > request.max_tokens)
    return fmt::format("min_tokens is {}; allowed: 0 to {} (max_tokens)", request.min_tokens,
                       request.max_tokens);
  for (const TokenBias& bias : request.logit_bias)
    if (!is_id(bias.id) || !std::isfinite(bias.bias))
      return fmt::format("logit_bias of id {} is {}; allowed are finite ones of ids 0 to {}",
                         bias.id, bias.bias, vocab_size - 1);
  for (size_t i = 0; i < request.prompt.size(); ++i)
    if (!is_id(request.prompt[i]))
      return fmt::format("prompt id {} at position {} is out of range; allowed: 0 to {}",
                         request.prompt[i], i, vocab_size - 1);
  if (request.grammar != nullptr && request.grammar->trie().vocab_size() != vocab_size)
    return fmt::format("the grammar is of {} ids; the model has {}",
                       request.grammar->trie().vocab_size(), vocab_size);
  if (!request.first_allowed.empty() &&
      std::ssize(request.first_allowed) != grammar::TokenWords(vocab_size))
    return fmt::format("the first token is to be one of {} words of ids; the model has {}",
                       request.first_allowed.size(), grammar::TokenWords(vocab_size));
  return RefusalReason(request, MakeSchedulerOptions(options));
}

Engine::Engine(const model::Model& model, const EngineOptions& options)
    : Engine(model, options, std::make_unique<Team>(model, options)) {}

Engine::Engine(const model::Model& model, const EngineOptions& options, const RankLinks& links)
    : Engine(model, options, std::make_unique<Team>(model, options, links)) {
  host_of_rank_ = links.host_of_rank;
}

Engine::Engine(const model::Model& model, const EngineOptions& options, std::unique_ptr<Team> team)
    : options_(options),
      spec_(&model.spec()),
      moe_shape_(model.spec().moe),
      vocab_size_(model.spec().vocab_size),
      num_moe_layers_(model.spec().moe.layers.size()),
      scheduler_(std::make_unique<Scheduler>(
          MakeSchedulerOptions(options, kv::Windows(model::CacheShapes(model.spec()))))),
      team_(std::move(team)),
      pipeline_(std::make_unique<Pipeline>(model.spec(), options)),
      rank_rows_(static_cast<size_t>(options.layout.stage())),
      computed_rows_(rank_rows_.size() * num_moe_layers_) {
  WIDELOAD_CHECK(options.num_micro_batches <= options.layout.pp, "{} micro-batches in {} stages",
                 options.num_micro_batches, options.layout.pp);
  if (options.trace != nullptr) track_ = &options.trace->AddTrack(-1, "engine");
  info_.groups.resize(static_cast<size_t>(options.layout.dp));
  for (std::vector<Event>* events : {&events_, &returned_})
    events->reserve(static_cast<size_t>(options.layout.dp * options.max_batch_size) + 1);
  const moe::MoeShape& moe = model.spec().moe;
  if (moe.num_experts > 0 && options.layout.moe_ep > 1 &&
      options.rebalance.mode != rebalance::Mode::kOff) {
    rebalance::OnlineOptions online = options.rebalance;
    online.splits_evenly = options.split == eplb::SplitMode::kRoundRobin;
    online.trace = options.trace;
    // So many iterations are on their way when one begins, and one more may be planned for.
    online.delay_iterations = std::max(online.delay_iterations, options.num_micro_batches + 1);
    balancer_ = std::make_unique<rebalance::OnlineBalancer>(online, StartPlacements(moe, options));
  }
  try {
    team_->Start();
  } catch (...) {
    LeaveToStuckRanks();
    throw;
  }
  if (balancer_) CountRouted();
}

Engine::~Engine() { LeaveToStuckRanks(); }

// A stuck thread cannot be ended, and it may wake up: what it uses stays.
void Engine::LeaveToStuckRanks() {
  if (team_->Stop()) return;
  [[maybe_unused]] const auto* team = team_.release();
  [[maybe_unused]] const auto* scheduler = scheduler_.release();
  [[maybe_unused]] const auto* pipeline = pipeline_.release();
}

int64_t Engine::next_iteration() const { return pipeline_->num_planned; }

parallel::Shard Engine::MoeLayersOf(int32_t stage) const {
  return pipeline_->moe_layers[static_cast<size_t>(stage)];
}

void Engine::SetRecorder(statistics::Recorder* recorder) { team_->SetRecorder(recorder); }

RequestId Engine::Submit(Request request) {
  const RequestId id = next_id_++;
  std::string error = RefusalReason(request, options_, vocab_size_);
  if (error.empty()) error = scheduler_->Add(id, std::move(request));
  if (!error.empty())
    pending_.push_back({.id = id, .finish = FinishReason::kError, .error = std::move(error)});
  return id;
}

RequestId Engine::SubmitComputed(Request request, ComputedPrompt prompt) {
  WIDELOAD_CHECK(!request.prompt_logits, "a prompt computed elsewhere has no logits here");
  const RequestId id = Submit(std::move(request));
  if (scheduler_->Find(id) == nullptr) return id;
  Sequence& sequence = scheduler_->GoOnWith(id, prompt.token, prompt.num_cached_tokens);
  NoteAllowed(sequence, vocab_size_);
  const TextState text = TakeToken(sequence, prompt.token);
  if (text == TextState::kGoesOn) {
    leases_.emplace(id, std::move(prompt.lease));
    return id;
  }
  // Its last token is text, or it is none of the grammar's.
  scheduler_->Retire(id);
  if (text == TextState::kComplete)
    pending_.push_back({.id = id, .finish = FinishReason::kStop});
  else
    pending_.push_back({.id = id, .finish = FinishReason::kError, .error = kBrokenText});
  return id;
}

CachedSequence Engine::Cached(const Sequence& sequence) const {
  CachedSequence cached{
      .spec = spec_, .parts = {}, .caches = {}, .tables = sequence.tables, .group = sequence.group};
  const int32_t micro_batch = MicroBatchOf(options_.layout, sequence.group);
  for (const int32_t rank : RanksOfGroup(options_.layout, sequence.group)) {
    cached.parts.push_back(CachePartOf(options_, spec_->num_layers(), rank));
    cached.caches.push_back(team_->cache(static_cast<size_t>(rank), micro_batch));
  }
  return cached;
}

std::optional<CachedSequence> Engine::Kept(RequestId id) const {
  const Sequence* const sequence = scheduler_->Find(id);
  if (sequence == nullptr || !sequence->is_held) return std::nullopt;
  return Cached(*sequence);
}

void Engine::Release(RequestId id) {
  const Sequence* const sequence = scheduler_->Find(id);
  if (sequence != nullptr && sequence->is_held) Retire(id);
}

// While no rank computes. Requests whose prompts cannot be had leave the batch.
void Engine::FetchPrompts(MicroBatch& batch) {
  if (leases_.empty()) return;
  for (auto& entries : batch.groups)
    std::erase_if(entries,
                  [this](const PlanEntry& entry) { return !FetchPrompt(*entry.sequence); });
}

// False when the request has ended: nothing but its blocks, which are free again, was written.
bool Engine::FetchPrompt(Sequence& sequence) {
  const auto lease = leases_.find(sequence.id);
  if (lease == leases_.end()) return true;
  const int64_t first_block = std::exchange(sequence.fetch_from, -1);
  if (first_block >= 0) {  // else it was preempted before it ran, and is computed here
    const auto begin = std::chrono::steady_clock::now();
    const FetchResult found = team_->Fetch(lease->second->prompt(), Cached(sequence), first_block);
    hand_over_.num_bytes += found.num_bytes;
    hand_over_.ns += (std::chrono::steady_clock::now() - begin) / std::chrono::nanoseconds(1);
    if (!found.error.empty()) {
      LogWarn("the keys and values of a prompt could not be read: {}", found.error);
      Fail(sequence.id, fmt::format("{}: {}", kPromptNotRead, found.error));
      return false;
    }
    ++hand_over_.num_prompts;
  }
  leases_.erase(lease);
  return true;
}

void Engine::Retire(RequestId id) {
  leases_.erase(id);
  scheduler_->Retire(id);
  team_->Forget(id);
}

bool Engine::IsOnItsWay(RequestId id) const {
  for (const MicroBatch& batch : pipeline_->batches) {
    if (batch.is_empty()) continue;
    for (const auto& entries : batch.groups)
      if (std::ranges::any_of(entries, [id](const PlanEntry& e) { return e.sequence->id == id; }))
        return true;
  }
  return false;
}

void Engine::Cancel(RequestId id) {
  const Sequence* const sequence = scheduler_->Find(id);
  if (sequence == nullptr || sequence->is_held || std::ranges::count(cancelled_, id) > 0) return;
  // Stages use what a micro-batch on its way has: Collect retires it.
  if (IsOnItsWay(id))
    cancelled_.push_back(id);
  else
    Retire(id);
  pending_.push_back({.id = id, .finish = FinishReason::kCancelled});
}

// Plans for the micro-batch. False when it has nothing to compute.
bool Engine::Fill(MicroBatch& batch) {
  const StepPlan& plan = scheduler_->Plan(batch.index);
  if (plan.empty()) return false;
  for (size_t g = 0; g < plan.groups.size(); ++g)
    batch.groups[g].assign(plan.groups[g].begin(), plan.groups[g].end());
  FetchPrompts(batch);
  if (!batch.HasEntries()) return false;
  batch.iteration = pipeline_->num_planned++;
  return true;
}

// Makes the next micro-batch for the first stage, if there is one whose turn it is and which has
// something to compute. False when all stages are empty.
bool Engine::PlanNext() {
  const trace::Span span(trace::SpanKind::kSchedule);
  Pipeline& pipeline = *pipeline_;
  for (int32_t i = 0; i < options_.layout.pp; ++i) {
    MicroBatch& next = pipeline.batches[pipeline.IndexOf(pipeline.num_steps)];
    next.index = static_cast<int32_t>(pipeline.IndexOf(pipeline.num_steps));
    if (next.index < options_.num_micro_batches && Fill(next)) return true;
    if (!pipeline.is_empty()) return true;
    ++pipeline.num_steps;  // nobody is in a stage
  }
  return false;
}

std::span<const Event> Engine::Step(const std::function<void()>& meanwhile) {
  std::swap(events_, returned_);
  events_.clear();
  std::ranges::move(pending_, std::back_inserter(events_));
  pending_.clear();
  const trace::OnTrack on(track_);
  Pipeline& pipeline = *pipeline_;
  trace::SetIteration(pipeline.num_planned);
  if (!PlanNext()) {
    team_->CheckLives();
    return events_;
  }
  const auto begin = std::chrono::steady_clock::now();
  pipeline.Advance();
  MicroBatch& first = *pipeline.stages.front();
  MicroBatch& home = *pipeline.stages.back();
  if (!home.is_empty()) info_.iteration = home.iteration;
  std::fill(info_.groups.begin(), info_.groups.end(), GroupIteration{});
  first.change = first.is_empty() ? std::nullopt : NextChange(first.iteration);
  {
    const trace::Span span(trace::SpanKind::kStep);
    TeamStep step{.stages = pipeline.stages, .meanwhile = meanwhile};
    if (first.HasGrammar()) step.note_allowed = [this, &first] { NoteAllowedTokens(first); };
    team_->Run(step);
  }
  CountRows(pipeline.stages);
  if (!home.is_empty()) {
    Collect(home);
    computed_rows_.swap(pipeline.rows[static_cast<size_t>(home.index)]);
    TellBalancer(home);
    if (options_.logs_iterations) LogIteration(begin);
    home.iteration = -1;
  }
  ++pipeline.num_steps;
  return events_;
}

void Engine::NoteAllowedTokens(const MicroBatch& batch) const {
  for (const auto& entries : batch.groups)
    for (const PlanEntry& entry : entries)
      if (entry.sample) NoteAllowed(*entry.sequence, vocab_size_);
}

void Engine::LogIteration(std::chrono::steady_clock::time_point begin) const {
  const auto now = std::chrono::steady_clock::now();
  const auto seconds = [](auto time) { return std::chrono::duration<double>(time).count(); };
  std::istringstream lines(
      IterationLogLines(info_, options_, seconds(now - begin), seconds(now - start_)));
  for (std::string line; std::getline(lines, line);) LogInfo("{}", line);
}

std::optional<rebalance::PlacementChange> Engine::NextChange(int64_t iteration) {
  if (placement_source_) return placement_source_(iteration);
  if (!balancer_) return std::nullopt;
  const trace::Span span(trace::SpanKind::kBalance);
  const int64_t start = ThreadCpuNs();
  std::optional<rebalance::PlacementChange> change = balancer_->ChangeFor(iteration);
  balancing_ns_ += ThreadCpuNs() - start;
  return change;
}

void Engine::TellBalancer(const MicroBatch& home) {
  if (!is_counting_) return;
  const trace::Span span(trace::SpanKind::kBalance);
  const int64_t start = ThreadCpuNs();
  routed_counts_.swap(pipeline_->counts[static_cast<size_t>(home.index)]);
  pipeline_->counts[static_cast<size_t>(home.index)].clear();
  if (!balancer_) return;
  balancer_->Observe(home.iteration, routed_counts_, is_warmup_);
  balancing_ns_ += ThreadCpuNs() - start;
}

void Engine::Collect(const MicroBatch& batch) {
  const trace::Span span(trace::SpanKind::kCollect);
  const int32_t last_stage = options_.layout.world() - options_.layout.stage();
  for (size_t g = 0; g < batch.groups.size(); ++g) {
    // The first rank of a group samples for it.
    const RankResult result = team_->result(static_cast<size_t>(last_stage) +
                                            g * static_cast<size_t>(options_.layout.tp));
    for (size_t i = 0; i < batch.groups[g].size(); ++i) {
      const PlanEntry& entry = batch.groups[g][i];
      const RankOutput& output = result.outputs[i];
      const Sequence& sequence = *entry.sequence;
      const RequestId id = sequence.id;
      CountEntry(info_.groups[g], entry);
      if (std::erase(cancelled_, id) > 0) {
        Retire(id);
        continue;
      }
      DeliverPromptLogits(entry, output);
      if (entry.sample && output.token < 0) {
        Fail(id, sequence.allowed.empty() ? "the model's logits are not finite (NaN)"
                                          : "no token that may follow has a finite logit");
        continue;
      }
      FinishReason finish = scheduler_->Complete(entry, output.token);
      const TextState text = output.token >= 0 && finish != FinishReason::kStop
                                 ? TakeToken(*entry.sequence, output.token)
                                 : TextState::kGoesOn;
      if (text == TextState::kBroken) {
        Fail(id, kBrokenText);
        continue;
      }
      if (text == TextState::kComplete) finish = FinishReason::kNone;
      if (output.token >= 0 || finish != FinishReason::kNone)
        events_.push_back({.id = id,
                           .token = output.token,
                           .finish = finish,
                           .error = {},
                           .logprobs = output.logprobs,
                           .num_cached_tokens = sequence.num_cached});
      // Its last token is text: that nothing follows is an event of its own.
      if (text == TextState::kComplete) {
        finish = FinishReason::kStop;
        events_.push_back({.id = id, .finish = finish});
      }
      if (finish == FinishReason::kLength && sequence.request.keeps_cache)
        scheduler_->Hold(id);
      else if (finish != FinishReason::kNone)
        Retire(id);
    }
  }
}

void Engine::Fail(RequestId id, std::string error) {
  Retire(id);
  events_.push_back({.id = id, .finish = FinishReason::kError, .error = std::move(error)});
}

void Engine::DeliverPromptLogits(const PlanEntry& entry, const RankOutput& output) {
  if (!entry.sequence->request.prompt_logits || !logits_sink_) return;
  const int64_t prompt_length = entry.sequence->prompt_length;
  const auto vocab_size = static_cast<size_t>(output.logits.dim(1));
  for (int64_t i = 0; i < entry.count && entry.start + i < prompt_length; ++i)
    logits_sink_(entry.sequence->id, entry.start + i, {output.logits.row<float>(i), vocab_size});
}

// Of each stage the rows and counts of its own MoE layers, which are of its micro-batch.
void Engine::CountRows(std::span<MicroBatch* const> stages) {
  const size_t ranks = rank_rows_.size();
  for (size_t s = 0; s < stages.size(); ++s) {
    if (stages[s]->is_empty() || team_->result(0).computed_rows.empty()) continue;
    const parallel::Shard layers = pipeline_->moe_layers[s];
    std::vector<int64_t>& of_batch = pipeline_->rows[static_cast<size_t>(stages[s]->index)];
    for (int64_t layer = layers.begin; layer < layers.end; ++layer) {
      const auto l = static_cast<size_t>(layer);
      for (size_t r = 0; r < ranks; ++r) {
        const int64_t rows = team_->result(s * ranks + r).computed_rows[l];
        of_batch[r * num_moe_layers_ + l] = rows;
        rank_rows_[r] = static_cast<double>(rows);
      }
      const double imbalance = eplb::ImbalanceRatio(rank_rows_);
      imbalance_sum_ += imbalance;
      balancedness_sum_ += 1 / (1 + imbalance);
    }
    num_imbalances_ += layers.size();
    if (!is_counting_) continue;
    std::vector<int32_t>& sums = pipeline_->counts[static_cast<size_t>(stages[s]->index)];
    sums.resize(team_->result(0).routed_counts.size());
    for (size_t r = s * ranks; r < (s + 1) * ranks; ++r) {
      const std::span<const int32_t> counts = team_->result(r).routed_counts;
      WIDELOAD_CHECK(counts.size() == sums.size(), "rank {} has {} counts, rank 0 {}", r,
                     counts.size(), sums.size());
      for (size_t i = 0; i < counts.size(); ++i) sums[i] += counts[i];
    }
  }
}

ExchangeFigures Engine::exchange_figures() const {
  ExchangeFigures figures{.num_iterations = info_.iteration + 1,
                          .imbalance_sum = imbalance_sum_,
                          .balancedness_sum = balancedness_sum_,
                          .num_imbalances = num_imbalances_};
  for (size_t r = 0; r < team_->size(); ++r) {
    const RankExchange* exchange = team_->result(r).exchange;
    if (exchange == nullptr) return figures;
    if (r % rank_rows_.size() == 0) {  // the same on all ranks of a stage
      figures.known_imbalance_sum += exchange->known_imbalance_sum;
      figures.num_rounds += exchange->traffic.num_rounds;
    }
    figures.num_rows += exchange->traffic.num_rows;
    figures.num_returns += exchange->traffic.num_returns;
    for (size_t kind = 0; kind < figures.waits.size(); ++kind) {
      figures.waits[kind].num_waits += exchange->waits[kind].num_waits;
      figures.waits[kind].total_ns += exchange->waits[kind].total_ns;
    }
  }
  return figures;
}

}  // namespace wideload::runtime
