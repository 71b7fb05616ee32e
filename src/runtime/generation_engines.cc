#include "runtime/generation_engines.h"

#include <algorithm>
#include <utility>

namespace wideload::runtime {

GenerationEngines::GenerationEngines(std::span<Engine* const> engines, const Common& common,
                                     std::span<TokenEngine* const> others)
    : common_(common),
      router_(common.routing, ServerRouter::CapacityOf(engines.front()->options()),
              engines.size() + others.size()) {
  const auto add = [this](auto& engine) {
    members_.push_back(std::make_unique<EngineThread>(engine, common_.tokenizer,
                                                      fmt::format("generation {}", members_.size()),
                                                      [this] { wake_.Increment(); }));
    members_.back()->loop().UseContext(*common_.contexts, common_.transfer_timeout);
  };
  for (Engine* const engine : engines) add(*engine);
  for (TokenEngine* const engine : others) add(*engine);
}

GenerationEngines::~GenerationEngines() { Stop(); }

void GenerationEngines::Stop() {
  is_ending_ = true;
  for (const auto& member : members_) member->AskToStop();
  for (const auto& member : members_) member->Stop();
}

JobId GenerationEngines::Submit(Job job) {
  const auto open = std::make_shared<Open>();
  open->job = std::move(job);
  open->num_retries_left = common_.max_retries;
  JobId id = -1;
  {
    const std::lock_guard lock(mutex_);
    id = next_id_++;
    open_.emplace(id, open);
  }
  try {
    const std::lock_guard lock(open->mutex);
    Give(open, id);
  } catch (const std::exception&) {
    Forget(id);
    throw;
  }
  return id;
}

// With the request's mutex: what comes of it waits until it is noted where it is.
void GenerationEngines::Give(const std::shared_ptr<Open>& open, JobId id) {
  std::vector<ServerRouter::Load> loads;
  for (const auto& member : members_)
    loads.push_back({.is_running = member->is_running(), .num_open = member->num_open()});
  Job job = open->job;
  int64_t num_known = 0;
  // One that has ended says so itself.
  open->engine =
      router_.Choose(job.request.prompt, job.request.cache_salt, loads, &num_known).value_or(0);
  job.computes_prompt = common_.max_own_prefill && num_known > 0 && job.prompt_logprobs < 0 &&
                        std::ssize(job.request.prompt) - num_known <= *common_.max_own_prefill;
  job.sink = [this, open, id](Delta delta) { Take(open, id, std::move(delta)); };
  open->engine_id = members_[open->engine]->Submit(std::move(job));
}

void GenerationEngines::Take(const std::shared_ptr<Open>& open, JobId id, Delta delta) {
  if (delta.finish == FinishReason::kError && BeginAgain(open, id, delta)) return;
  if (delta.token >= 0) ++open->num_made;
  // The same bits as those that were told before.
  if (!delta.is_last() && open->num_made <= open->num_told) return;
  open->num_told = std::max(open->num_told, open->num_made);
  if (delta.is_last()) Forget(id);
  open->job.sink(std::move(delta));
}

bool GenerationEngines::BeginAgain(const std::shared_ptr<Open>& open, JobId id, const Delta& last) {
  const bool has_failed = last.error == kEngineStopped || last.error.starts_with(kPromptNotRead);
  if (!has_failed || is_ending_ || has_ended()) return false;
  const std::lock_guard lock(open->mutex);
  if (open->num_retries_left == 0 || open->is_cancelled) return false;
  --open->num_retries_left;
  ++num_retries_;
  open->num_made = 0;
  Give(open, id);
  return true;
}

void GenerationEngines::Forget(JobId id) {
  const std::lock_guard lock(mutex_);
  open_.erase(id);
}

void GenerationEngines::Cancel(JobId id) {
  std::shared_ptr<Open> open;
  {
    const std::lock_guard lock(mutex_);
    const auto found = open_.find(id);
    if (found == open_.end()) return;
    open = found->second;
  }
  const std::lock_guard lock(open->mutex);
  open->is_cancelled = true;
  members_[open->engine]->loop().Cancel(open->engine_id);
}

bool GenerationEngines::has_ended() const {
  return std::ranges::none_of(members_, [](const auto& member) { return member->is_running(); });
}

void GenerationEngines::Watch() {
  for (const auto& member : members_) member->loop().Watch();
}

void GenerationEngines::Step() {
  seen_ = wake_.Load();
  if (!std::exchange(has_begun_, true))
    for (const auto& member : members_) member->Start();
  std::exception_ptr last;
  for (const auto& member : members_) {
    last = member->failure();
    if (!last) return;
  }
  std::rethrow_exception(last);
}

void GenerationEngines::EndAll(const std::string& reason) {
  is_ending_ = true;
  for (const auto& member : members_) member->EndAll(reason);
}

}  // namespace wideload::runtime
