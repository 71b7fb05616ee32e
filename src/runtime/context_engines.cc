#include "runtime/context_engines.h"

#include <algorithm>
#include <utility>

namespace wideload::runtime {

ContextEngines::ContextEngines(std::span<Engine* const> engines, ServerRouting routing)
    : router_(routing, ServerRouter::CapacityOf(engines.front()->options()), engines.size()) {
  for (size_t i = 0; i < engines.size(); ++i)
    members_.push_back(std::make_unique<Member>(*engines[i], i));
  for (const auto& member : members_) member->thread.Start();
}

ContextEngines::~ContextEngines() { Stop(); }

void ContextEngines::Stop() {
  for (const auto& member : members_) member->thread.AskToStop();
  for (const auto& member : members_) member->thread.Stop();
}

bool ContextEngines::is_any_running() const {
  return std::ranges::any_of(members_,
                             [](const auto& member) { return member->thread.is_running(); });
}

ContextEngines::Member& ContextEngines::Choose(const Request& request) {
  std::vector<ServerRouter::Load> loads;
  for (const auto& member : members_)
    loads.push_back(
        {.is_running = member->thread.is_running(), .num_open = member->thread.num_open()});
  // One that has ended says so itself.
  return *members_[router_.Choose(request.prompt, request.cache_salt, loads).value_or(0)];
}

std::vector<ContextFigures> ContextEngines::figures() const {
  std::vector<ContextFigures> all;
  for (const auto& member : members_) {
    const EngineFigures figures = member->thread.loop().figures();
    all.push_back({.num_waiting = figures.num_waiting,
                   .num_running = figures.num_running,
                   .num_held = figures.num_held,
                   .num_iterations = figures.num_iterations,
                   .num_prompts = *member->num_prompts,
                   .kv_usage = figures.kv_usage,
                   .is_running = member->thread.is_running()});
  }
  return all;
}

std::function<void()> ContextEngines::Begin(Job job) {
  Member& member = Choose(job.request);
  // The text is of the engine that goes on.
  job.text = {};
  const bool goes_on = job.request.max_tokens > 1;
  job.request.keeps_cache = goes_on;
  if (goes_on) job.request.max_tokens = 1;
  job.request.min_tokens = std::min(job.request.min_tokens, job.request.max_tokens);
  job.sink = [sink = std::move(job.sink), num_prompts = member.num_prompts](Delta delta) {
    const bool is_computed = delta.is_last() && delta.token >= 0;
    sink(std::move(delta));
    if (is_computed) ++*num_prompts;  // once it can be fetched
  };
  const JobId id = member.thread.Submit(std::move(job));
  return [&loop = member.thread.loop(), id] { loop.Cancel(id); };
}

}  // namespace wideload::runtime
