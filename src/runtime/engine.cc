#include "runtime/engine.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <utility>

#include "base/error.h"

namespace wideload::runtime {
namespace {

// A rank that has not come back this long after the group was ended is lost. Waits end within a
// slice of 0.1 s; a rank that only computes is given up as well: the run has failed already.
constexpr std::chrono::seconds kLostAfter{2};

void CountEntry(RankIteration& rank, const PlanEntry& entry) {
  const bool decode = entry.start >= static_cast<int64_t>(entry.sequence->request.prompt.size());
  ++rank.num_requests;
  if (!decode) ++rank.num_prompt_requests;
  (decode ? rank.num_generated_tokens : rank.num_prompt_tokens) += entry.count;
}

SchedulerOptions MakeSchedulerOptions(const EngineOptions& options) {
  return {.num_ranks = options.num_ranks,
          .max_num_tokens = options.max_num_tokens,
          .max_batch_size = options.max_batch_size,
          .num_kv_blocks = options.num_kv_blocks,
          .max_seq_len = options.max_seq_len};
}

moe::MoeLayout MakeMoeLayout(const moe::MoeShape& shape, const EngineOptions& options) {
  moe::MoeLayout layout{.num_ranks = options.num_ranks, .split = options.split};
  const auto num_experts = static_cast<int32_t>(shape.num_experts);
  layout.num_slots = options.num_slots > 0 ? options.num_slots : num_experts;
  layout.placements = options.placements;
  if (layout.placements.empty() && num_experts > 0)
    layout.placements.assign(
        shape.layers.size(),
        eplb::ContiguousPlacement(num_experts, layout.num_slots, options.num_ranks));
  layout.chunk_tokens =
      moe::ChunkTokens(options.moe_max_num_tokens, options.num_ranks, options.max_num_tokens);
  moe::ValidateLayout(shape, layout);
  return layout;
}

}  // namespace

std::string RefusalReason(const Request& request, const EngineOptions& options,
                          int64_t vocab_size) {
  const std::string wrong = InvalidField(request.sampling, vocab_size);
  if (!wrong.empty()) return wrong;
  for (size_t i = 0; i < request.prompt.size(); ++i)
    if (request.prompt[i] < 0 || request.prompt[i] >= vocab_size)
      return fmt::format("prompt id {} at position {} is out of range; allowed: 0 to {}",
                         request.prompt[i], i, vocab_size - 1);
  return RefusalReason(request, MakeSchedulerOptions(options));
}

Engine::Engine(const model::Model& model, const EngineOptions& options)
    : options_(options),
      scheduler_(MakeSchedulerOptions(options)),
      moe_layout_(MakeMoeLayout(model.shape().moe, options)),
      group_(options.num_ranks, {.total_threads = options.num_ranks * options.threads_per_rank,
                                 .deadline = options.deadline}),
      ladder_(WaitLadder::For(options.num_ranks * options.threads_per_rank + 1)),
      failures_(static_cast<size_t>(options.num_ranks)) {
  if (model.shape().moe.num_experts > 0)
    fabrics_ = std::make_unique<exchange::LocalFabrics>(
        options.num_ranks,
        exchange::SegmentBytes(
            moe::MakeExchangeShape(model.shape().moe, moe_layout_, options.kernels)),
        options.num_ranks * options.threads_per_rank);
  for (int32_t r = 0; r < options.num_ranks; ++r)
    ranks_.push_back(std::make_unique<Rank>(
        model, RankOptions{.rank = r,
                           .num_ranks = options.num_ranks,
                           .threads = options.threads_per_rank,
                           .kernels = options.kernels,
                           .max_num_tokens = options.max_num_tokens,
                           .max_batch_size = options.max_batch_size,
                           .num_kv_blocks = options.num_kv_blocks,
                           .moe_layout = &moe_layout_,
                           .group = &group_.rank(r),
                           .fabric = fabrics_ ? &fabrics_->rank(r) : nullptr}));
  info_.ranks.resize(static_cast<size_t>(options.num_ranks));
  events_.reserve(static_cast<size_t>(options.num_ranks * options.max_batch_size) + 1);
  for (int32_t r = 0; r < options.num_ranks; ++r) threads_.emplace_back([this, r] { RankMain(r); });
  StepPlan nothing;
  nothing.ranks.resize(static_cast<size_t>(options.num_ranks));
  try {
    RunRanks(nothing);  // every rank is up, or the reason why not is thrown
  } catch (...) {
    StopRanks();
    throw;
  }
}

void Engine::SetRecorder(statistics::Recorder* recorder) {
  for (const std::unique_ptr<Rank>& rank : ranks_) rank->SetRecorder(recorder);
}

Engine::~Engine() { StopRanks(); }

void Engine::StopRanks() {
  if (is_rank_lost_) {
    // Its thread still uses the memory of this object.
    const std::optional<comm::AbortReport> report = group_.Aborted();
    std::fprintf(stderr, "wideload: error: %s\n",
                 report ? report->reason.c_str() : "a rank is lost");
    std::fflush(nullptr);
    std::_Exit(ExitCode(ErrorKind::kRunFailed));
  }
  stop_.store(true, std::memory_order_release);
  round_.Increment();
  threads_.clear();
}

RequestId Engine::Submit(Request request) {
  const RequestId id = next_id_++;
  const int64_t vocab_size = ranks_.front()->model().shape().vocab_size;
  std::string error = RefusalReason(request, options_, vocab_size);
  if (error.empty()) error = scheduler_.Add(id, std::move(request));
  if (!error.empty())
    pending_.push_back({.id = id, .finish = FinishReason::kError, .error = std::move(error)});
  return id;
}

void Engine::Cancel(RequestId id) {
  if (scheduler_.Retire(id)) pending_.push_back({.id = id, .finish = FinishReason::kCancelled});
}

std::span<const Event> Engine::Step() {
  events_.clear();
  std::swap(events_, pending_);
  const StepPlan& plan = scheduler_.Plan();
  if (plan.empty()) return events_;
  ++info_.iteration;
  std::fill(info_.ranks.begin(), info_.ranks.end(), RankIteration{});
  RunRanks(plan);
  Collect(plan);
  return events_;
}

void Engine::RunRanks(const StepPlan& plan) {
  plan_ = &plan;
  const uint32_t all_done = done_.Load() + static_cast<uint32_t>(ranks_.size());
  round_.Increment();
  is_rank_lost_ = !WaitForRanks(all_done);
  if (is_rank_lost_ || std::any_of(failures_.begin(), failures_.end(),
                                   [](const std::exception_ptr& f) { return f != nullptr; }))
    RethrowFailure();
}

// False when a rank does not come back although the group has been ended.
bool Engine::WaitForRanks(uint32_t all_done) {
  std::optional<std::chrono::steady_clock::time_point> ended;
  return WaitFor(
      done_, ladder_, [&](uint32_t done) { return done == all_done; },
      [&] {
        if (!group_.Aborted()) return true;
        const auto now = std::chrono::steady_clock::now();
        if (!ended) ended = now;
        return now - *ended < kLostAfter;
      });
}

// What the rank says that found the fault; the others only were told.
void Engine::RethrowFailure() const {
  std::exception_ptr told;
  for (const std::exception_ptr& failure : failures_) {
    if (!failure) continue;
    try {
      std::rethrow_exception(failure);
    } catch (const comm::PeerLost& lost) {
      if (!lost.details().is_told) throw;
      told = failure;
    }
  }
  if (told) std::rethrow_exception(told);
  Throw(ErrorKind::kRunFailed, "a rank is lost");
}

void Engine::RankMain(int32_t r) {
  NameThisThread(fmt::format("rank {}", r));
  Rank& rank = *ranks_[static_cast<size_t>(r)];
  uint32_t seen = 0;
  bool started = false;
  while (true) {
    WaitFor(
        round_, ladder_, [&](uint32_t round) { return round != seen; }, [] { return true; });
    ++seen;
    if (stop_.load(std::memory_order_acquire)) return;
    try {
      if (std::exchange(started, true)) {
        rank.Run(plan_->ranks[static_cast<size_t>(r)], info_.iteration);
      } else {
        rank.Start();
      }
    } catch (const std::exception& e) {
      failures_[static_cast<size_t>(r)] = std::current_exception();
      group_.Abort(r, e.what());
    }
    done_.Increment();
  }
}

void Engine::Collect(const StepPlan& plan) {
  for (size_t r = 0; r < plan.ranks.size(); ++r) {
    for (size_t i = 0; i < plan.ranks[r].size(); ++i) {
      const PlanEntry& entry = plan.ranks[r][i];
      const RankOutput& output = ranks_[r]->outputs()[i];
      const Sequence& sequence = *entry.sequence;
      const RequestId id = sequence.id;
      CountEntry(info_.ranks[r], entry);
      DeliverPromptLogits(entry, output);
      if (entry.sample && output.token < 0) {
        scheduler_.Retire(id);
        events_.push_back({.id = id,
                           .finish = FinishReason::kError,
                           .error = "the model's logits are not finite (NaN)"});
        continue;
      }
      const FinishReason finish = scheduler_.Complete(entry, output.token);
      if (output.token >= 0 || finish != FinishReason::kNone)
        events_.push_back({.id = id,
                           .token = output.token,
                           .finish = finish,
                           .error = {},
                           .logprobs = output.logprobs});
      if (finish != FinishReason::kNone) scheduler_.Retire(id);
    }
  }
}

void Engine::DeliverPromptLogits(const PlanEntry& entry, const RankOutput& output) {
  if (!entry.sequence->request.prompt_logits || !logits_sink_) return;
  const auto prompt_length = static_cast<int64_t>(entry.sequence->request.prompt.size());
  const auto vocab_size = static_cast<size_t>(output.logits.dim(1));
  for (int64_t i = 0; i < entry.count && entry.start + i < prompt_length; ++i)
    logits_sink_(entry.sequence->id, entry.start + i, {output.logits.row<float>(i), vocab_size});
}

}  // namespace wideload::runtime
