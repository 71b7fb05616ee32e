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

namespace wideload::runtime {
namespace {

void CountEntry(GroupIteration& group, const PlanEntry& entry) {
  const bool decode = entry.start >= entry.sequence->prompt_length;
  ++group.num_requests;
  if (!decode) ++group.num_prompt_requests;
  (decode ? group.num_generated_tokens : group.num_prompt_tokens) += entry.count;
}

SchedulerOptions MakeSchedulerOptions(const EngineOptions& options,
                                      std::vector<int64_t> kv_windows = {0}) {
  return {.num_groups = options.layout.dp,
          .max_num_tokens = options.max_num_tokens,
          .max_batch_size = options.max_batch_size,
          .num_kv_blocks = options.num_kv_blocks,
          .kv_windows = std::move(kv_windows),
          .max_seq_len = options.max_seq_len,
          .prefix_cache = options.prefix_cache};
}

}  // namespace

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
  return RefusalReason(request, MakeSchedulerOptions(options));
}

Engine::Engine(const model::Model& model, const EngineOptions& options)
    : Engine(model, options, std::make_unique<Team>(model, options)) {}

Engine::Engine(const model::Model& model, const EngineOptions& options, const RankLinks& links)
    : Engine(model, options, std::make_unique<Team>(model, options, links)) {}

Engine::Engine(const model::Model& model, const EngineOptions& options, std::unique_ptr<Team> team)
    : options_(options),
      moe_shape_(model.spec().moe),
      vocab_size_(model.spec().vocab_size),
      scheduler_(std::make_unique<Scheduler>(
          MakeSchedulerOptions(options, kv::Windows(model::CacheShapes(model.spec()))))),
      team_(std::move(team)),
      rank_rows_(static_cast<size_t>(options.num_ranks())) {
  if (options.trace != nullptr) track_ = &options.trace->AddTrack(-1, "engine");
  info_.groups.resize(static_cast<size_t>(options.layout.dp));
  events_.reserve(static_cast<size_t>(options.layout.dp * options.max_batch_size) + 1);
  const moe::MoeShape& moe = model.spec().moe;
  if (moe.num_experts > 0 && options.layout.moe_ep > 1 &&
      options.rebalance.mode != rebalance::Mode::kOff) {
    rebalance::OnlineOptions online = options.rebalance;
    online.splits_evenly = options.split == eplb::SplitMode::kRoundRobin;
    online.trace = options.trace;
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

void Engine::Retire(RequestId id) {
  scheduler_->Retire(id);
  team_->Forget(id);
}

void Engine::Cancel(RequestId id) {
  if (scheduler_->Find(id) == nullptr) return;
  Retire(id);
  pending_.push_back({.id = id, .finish = FinishReason::kCancelled});
}

std::span<const Event> Engine::Step() {
  events_.clear();
  std::swap(events_, pending_);
  const trace::OnTrack on(track_);
  trace::SetIteration(info_.iteration + 1);
  const StepPlan& plan = [&]() -> const StepPlan& {
    const trace::Span span(trace::SpanKind::kSchedule);
    return scheduler_->Plan();
  }();
  if (plan.empty()) {
    team_->CheckLives();
    return events_;
  }
  const auto begin = std::chrono::steady_clock::now();
  ++info_.iteration;
  std::fill(info_.groups.begin(), info_.groups.end(), GroupIteration{});
  NoteAllowedTokens(plan);
  const std::optional<rebalance::PlacementChange> change = NextChange();
  {
    const trace::Span span(trace::SpanKind::kStep);
    team_->Run({.plan = plan, .iteration = info_.iteration, .change = change ? &*change : nullptr});
  }
  Collect(plan);
  MeasureImbalance();
  TellBalancer();
  if (options_.logs_iterations) LogIteration(begin);
  return events_;
}

void Engine::NoteAllowedTokens(const StepPlan& plan) const {
  for (const auto& entries : plan.groups)
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

std::optional<rebalance::PlacementChange> Engine::NextChange() {
  if (placement_source_) return placement_source_(info_.iteration);
  if (!balancer_) return std::nullopt;
  const trace::Span span(trace::SpanKind::kBalance);
  const int64_t start = ThreadCpuNs();
  std::optional<rebalance::PlacementChange> change = balancer_->ChangeFor(info_.iteration);
  balancing_ns_ += ThreadCpuNs() - start;
  return change;
}

void Engine::TellBalancer() {
  if (!balancer_) return is_counting_ ? SumRouted() : void();
  const trace::Span span(trace::SpanKind::kBalance);
  const int64_t start = ThreadCpuNs();
  SumRouted();
  balancer_->Observe(info_.iteration, routed_counts_, is_warmup_);
  balancing_ns_ += ThreadCpuNs() - start;
}

void Engine::SumRouted() {
  const std::span<const int32_t> first = team_->result(0).routed_counts;
  routed_counts_.assign(first.begin(), first.end());
  for (size_t r = 1; r < team_->size(); ++r) {
    const std::span<const int32_t> counts = team_->result(r).routed_counts;
    WIDELOAD_CHECK(counts.size() == routed_counts_.size(), "rank {} has {} counts, rank 0 {}", r,
                   counts.size(), routed_counts_.size());
    for (size_t i = 0; i < counts.size(); ++i) routed_counts_[i] += counts[i];
  }
}

void Engine::Collect(const StepPlan& plan) {
  const trace::Span span(trace::SpanKind::kCollect);
  for (size_t g = 0; g < plan.groups.size(); ++g) {
    // The first rank of a group samples for it.
    const RankResult result = team_->result(g * static_cast<size_t>(options_.layout.tp));
    for (size_t i = 0; i < plan.groups[g].size(); ++i) {
      const PlanEntry& entry = plan.groups[g][i];
      const RankOutput& output = result.outputs[i];
      const Sequence& sequence = *entry.sequence;
      const RequestId id = sequence.id;
      CountEntry(info_.groups[g], entry);
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
        Fail(id, "a token was sampled that the grammar does not allow");
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
      if (finish != FinishReason::kNone) Retire(id);
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

void Engine::MeasureImbalance() {
  const size_t layers = team_->result(0).computed_rows.size();
  for (size_t layer = 0; layer < layers; ++layer) {
    for (size_t r = 0; r < rank_rows_.size(); ++r)
      rank_rows_[r] = static_cast<double>(team_->result(r).computed_rows[layer]);
    const double imbalance = eplb::ImbalanceRatio(rank_rows_);
    imbalance_sum_ += imbalance;
    balancedness_sum_ += 1 / (1 + imbalance);
  }
  num_imbalances_ += static_cast<int64_t>(layers);
}

ExchangeFigures Engine::exchange_figures() const {
  ExchangeFigures figures{.num_iterations = info_.iteration + 1,
                          .imbalance_sum = imbalance_sum_,
                          .balancedness_sum = balancedness_sum_,
                          .num_imbalances = num_imbalances_};
  for (size_t r = 0; r < team_->size(); ++r) {
    const RankExchange* exchange = team_->result(r).exchange;
    if (exchange == nullptr) return figures;
    figures.known_imbalance_sum = exchange->known_imbalance_sum;  // the same on all ranks
    figures.num_rounds = exchange->traffic.num_rounds;
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
