#include "runtime/engine_loop.h"

#include <utility>

#include "base/error.h"

namespace wideload::runtime {

EngineLoop::EngineLoop(Engine& engine, const tokenizer::Tokenizer* tokenizer, Now now)
    : EngineLoop(MakeLocalEngine(engine), nullptr, tokenizer, std::move(now)) {}

EngineLoop::EngineLoop(TokenEngine& engine, const tokenizer::Tokenizer* tokenizer, Now now)
    : EngineLoop(nullptr, &engine, tokenizer, std::move(now)) {}

EngineLoop::EngineLoop(std::unique_ptr<TokenEngine> own, TokenEngine* other,
                       const tokenizer::Tokenizer* tokenizer, Now now)
    : own_engine_(std::move(own)),
      engine_(own_engine_ ? *own_engine_ : *other),
      tokenizer_(tokenizer),
      now_(std::move(now)) {
  engine_.SetWake([this] { Wake(); });
  engine_.SetLogitsSink([this](RequestId id, int64_t position, std::span<const float> logits) {
    TakePromptLogits(id, position, logits);
  });
}

EngineLoop::~EngineLoop() {
  EndWorks();
  engine_.DropLeases();
  engine_.SetLogitsSink({});
  engine_.SetWake({});
}

JobId EngineLoop::Submit(Job job) {
  Generation generation(tokenizer_, std::move(job.text));
  const JobId id = next_id_.fetch_add(1, std::memory_order_relaxed);
  {
    const std::lock_guard lock(inbox_mutex_);
    arrivals_.push_back({.id = id, .job = std::move(job), .generation = std::move(generation)});
  }
  Wake();
  return id;
}

void EngineLoop::Cancel(JobId id) {
  {
    const std::lock_guard lock(inbox_mutex_);
    cancellations_.push_back(id);
  }
  Wake();
}

void EngineLoop::Post(Work work) {
  {
    const std::lock_guard lock(inbox_mutex_);
    if (takes_works_) works_.push_back(std::exchange(work, {}));
  }
  work ? work(nullptr) : Wake();
}

// Nothing is left of the works, and those to come are told at once.
void EngineLoop::EndWorks() {
  std::vector<Work> works;
  {
    const std::lock_guard lock(inbox_mutex_);
    takes_works_ = false;
    works.swap(works_);
  }
  for (const Work& work : works) work(nullptr);
}

void EngineLoop::Wake() { wake_.Increment(); }

bool EngineLoop::idle() const {
  return (std::ssize(jobs_) == num_elsewhere_ || engine_.only_waits()) && wake_.Load() == seen_;
}

void EngineLoop::Wait(std::chrono::milliseconds longest) { wake_.Sleep(seen_, longest); }

void EngineLoop::Step() {
  TakeInbox();
  EndLate();
  EndUnfetched();
  const auto start = std::chrono::steady_clock::now();
  try {
    bool has_next = false;  // that the events of the iteration before could be handed out beside
    const std::span<const Event> events = engine_.Step([&] {
      has_next = true;
      NoteBegun(start);
      HandOut();
    });
    HandOut();
    events_ = events;
    if (!has_next || engine_.idle()) HandOut();
  } catch (const std::exception&) {
    HandOut();
    FailAll(kEngineStopped);
    throw;
  }
  if (monitor_)
    monitor_->Note(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  NoteFigures();
}

void EngineLoop::TakeInbox() {
  seen_ = wake_.Load();
  std::vector<Work> works;
  {
    const std::lock_guard lock(inbox_mutex_);
    std::swap(arrivals_, new_arrivals_);
    std::swap(cancellations_, new_cancellations_);
    std::swap(prompts_, new_prompts_);
    works.swap(works_);
  }
  for (const Work& work : works) work(engine_.local());
  for (Arrival& arrival : new_arrivals_) Start(std::move(arrival));
  new_arrivals_.clear();
  // Who cancels gets the tokens that there are.
  if (!new_cancellations_.empty()) HandOut();
  for (const JobId id : new_cancellations_) {
    const auto job = jobs_.find(id);
    if (job == jobs_.end()) continue;
    job->second.sink(job->second.generation.End(FinishReason::kCancelled));
    Finish(job);
  }
  new_cancellations_.clear();
  for (ContextDelta& prompt : new_prompts_) TakePrompt(std::move(prompt));
  new_prompts_.clear();
}

void EngineLoop::Start(Arrival arrival) {
  if (!failure_.empty()) {
    arrival.job.sink(arrival.generation.End(FinishReason::kError, failure_));
    return;
  }
  Active active{.generation = std::move(arrival.generation),
                .sink = std::move(arrival.job.sink),
                .deadline = arrival.job.deadline,
                .num_prompt_logprobs = arrival.job.prompt_logprobs,
                .prompt = {},
                .prompt_logprobs = {},
                .begun = {},
                .request = {},
                .cancel_prompt = {},
                .computed = {}};
  if (context_ != nullptr && !arrival.job.computes_prompt) {
    jobs_.emplace(arrival.id, std::move(active));
    return BeginPrompt(arrival.id, std::move(arrival.job));
  }
  if (active.num_prompt_logprobs >= 0) {
    active.prompt = arrival.job.request.prompt;
    active.prompt_logprobs.resize(active.prompt.size());
    arrival.job.request.prompt_logits = true;
  }
  if (context_ != nullptr) {
    const std::lock_guard lock(figures_mutex_);
    ++figures_.num_own_prompts;
  }
  active.request_id = engine_.Submit(std::move(arrival.job.request));
  job_of_.emplace(active.request_id, arrival.id);
  jobs_.emplace(arrival.id, std::move(active));
}

void EngineLoop::BeginPrompt(JobId id, Job job) {
  jobs_.at(id).request = job.request;
  ++num_elsewhere_;
  job.sink = [this, id](Delta delta) {
    {
      const std::lock_guard lock(inbox_mutex_);
      if (has_ended_) return;
      prompts_.push_back({.id = id, .delta = std::move(delta)});
    }
    Wake();
  };
  jobs_.at(id).cancel_prompt = context_->Begin(std::move(job));
}

void EngineLoop::TakePrompt(ContextDelta prompt) {
  const auto job = jobs_.find(prompt.id);
  if (job == jobs_.end()) return;
  Active& active = job->second;
  active.begun = prompt.delta.begun;
  const bool goes_on = prompt.delta.lease != nullptr;
  Delta delta =
      active.generation.Take({.id = -1,
                              .token = prompt.delta.token,
                              .finish = goes_on ? FinishReason::kNone : prompt.delta.finish,
                              .error = std::move(prompt.delta.error),
                              .logprobs = std::move(prompt.delta.logprobs),
                              .num_cached_tokens = prompt.delta.num_cached_tokens});
  delta.prompt_logprobs = std::move(prompt.delta.prompt_logprobs);
  delta.begun = active.begun;
  if (goes_on && !delta.is_last()) {
    active.computed = now_();
    active.cancel_prompt = {};
    --num_elsewhere_;
    active.request_id = engine_.SubmitComputed(
        std::move(active.request), {.lease = std::move(prompt.delta.lease),
                                    .token = prompt.delta.token,
                                    .num_cached_tokens = prompt.delta.num_cached_tokens});
    job_of_.emplace(active.request_id, prompt.id);
  }
  const bool is_last = delta.is_last();
  active.sink(std::move(delta));
  if (is_last) Finish(job);
}

// Of computed prompts that had no place here for too long.
void EngineLoop::EndUnfetched() {
  if (context_ == nullptr) return;
  const auto now = now_();
  for (auto job = jobs_.begin(); job != jobs_.end();) {
    const auto late = job++;
    const Active& active = late->second;
    if (active.request_id < 0 || now - active.computed < transfer_timeout_ ||
        !engine_.HasLease(active.request_id))
      continue;
    late->second.sink(late->second.generation.End(
        FinishReason::kError,
        fmt::format("the keys and values of the prompt were not fetched within {} ms",
                    transfer_timeout_.count())));
    Finish(late);
  }
}

void EngineLoop::EndLate() {
  const auto now = now_();
  for (auto job = jobs_.begin(); job != jobs_.end();) {
    const auto late = job++;
    const auto& deadline = late->second.deadline;
    if (!deadline || now < *deadline) continue;
    if (!events_.empty()) {
      HandOut();
      return EndLate();
    }
    late->second.sink(late->second.generation.End(FinishReason::kDeadline));
    Finish(late);
  }
}

// Requests that the iteration which began at `time` was the first with.
void EngineLoop::NoteBegun(std::chrono::steady_clock::time_point time) {
  for (const RequestId id : engine_.admitted()) {
    const auto owner = job_of_.find(id);
    if (owner == job_of_.end()) continue;
    Active& active = jobs_.at(owner->second);
    if (active.begun == std::chrono::steady_clock::time_point()) active.begun = time;
  }
}

void EngineLoop::HandOut() {
  for (const Event& event : std::exchange(events_, {})) Deliver(event);
}

void EngineLoop::Deliver(const Event& event) {
  const auto owner = job_of_.find(event.id);
  if (owner == job_of_.end()) return;
  const auto job = jobs_.find(owner->second);
  Active& active = job->second;
  Delta delta = active.generation.Take(event);
  delta.prompt_logprobs = std::exchange(active.prompt_logprobs, {});
  delta.begun = active.begun;
  if (auto kept = event.finish == FinishReason::kLength ? engine_.Kept(event.id) : std::nullopt)
    delta.lease = std::make_shared<const PromptLease>(std::move(*kept), [this, id = event.id] {
      Post([id](Engine* engine) {
        if (engine != nullptr) engine->Release(id);
      });
    });
  const bool is_last = delta.is_last();
  active.sink(std::move(delta));
  if (is_last) Finish(job);
}

// The engine may have ended it already.
void EngineLoop::Finish(Jobs::iterator job) {
  if (job->second.cancel_prompt) {
    job->second.cancel_prompt();
    --num_elsewhere_;
  } else {
    engine_.Cancel(job->second.request_id);
    job_of_.erase(job->second.request_id);
  }
  jobs_.erase(job);
}

void EngineLoop::TakePromptLogits(RequestId id, int64_t position, std::span<const float> logits) {
  const auto owner = job_of_.find(id);
  if (owner == job_of_.end()) return;
  Active& active = jobs_.at(owner->second);
  const auto next = static_cast<size_t>(position) + 1;
  if (active.num_prompt_logprobs < 0 || next >= active.prompt_logprobs.size()) return;
  active.prompt_logprobs[next].clear();  // a preempted request computes its prompt again
  FillLogprobs(logits, active.prompt[next], active.num_prompt_logprobs, scratch_,
               active.prompt_logprobs[next]);
}

void EngineLoop::EndAll(const std::string& reason) {
  HandOut();
  for (const auto& [id, job] : jobs_) engine_.Cancel(job.request_id);
  FailAll(reason);
  TakeInbox();
}

// Leaves the engine as it is: a rank that is stuck may still use what it has.
void EngineLoop::FailAll(const std::string& reason) {
  failure_ = reason;
  has_ended_ = true;  // before anybody is told
  EndWorks();
  std::vector<ContextDelta> late;  // with leases
  {
    const std::lock_guard lock(inbox_mutex_);
    late.swap(prompts_);
  }
  engine_.DropLeases();
  num_elsewhere_ = 0;
  while (!jobs_.empty()) {
    const auto job = jobs_.begin();
    if (job->second.cancel_prompt) job->second.cancel_prompt();
    job->second.sink(job->second.generation.End(FinishReason::kError, reason));
    job_of_.erase(job->second.request_id);
    jobs_.erase(job);
  }
}

void EngineLoop::NoteFigures() {
  EngineFigures figures = engine_.figures();
  const std::lock_guard lock(figures_mutex_);
  figures.num_own_prompts = figures_.num_own_prompts;  // of which the engine knows nothing
  figures_ = figures;
}

EngineFigures EngineLoop::figures() const {
  const std::lock_guard lock(figures_mutex_);
  return figures_;
}

void RunJob(EngineLoop& loop, Job job, const std::function<bool()>& is_cancelled) {
  std::string error;
  bool has_ended = false;
  job.sink = [&, sink = std::move(job.sink)](Delta delta) {
    has_ended = delta.is_last();
    error = delta.error;
    if (error.empty()) sink(std::move(delta));
  };
  const JobId id = loop.Submit(std::move(job));
  while (!has_ended) {
    loop.Step();
    if (!has_ended && is_cancelled()) loop.Cancel(id);
  }
  if (!error.empty()) Throw(ErrorKind::kRunFailed, "{}", error);
}

}  // namespace wideload::runtime
