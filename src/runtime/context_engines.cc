#include "runtime/context_engines.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/thread_pool.h"

namespace wideload::runtime {
namespace {

constexpr std::chrono::milliseconds kContextRest{100};  // a wake-up comes at once
constexpr std::chrono::milliseconds kLeaseRest{2};

}  // namespace

ContextEngines::ContextEngines(std::span<Engine* const> engines, ContextRouting routing)
    : router_(routing, ContextRouter::CapacityOf(engines.front()->options()), engines.size()) {
  for (Engine* const engine : engines) members_.push_back(std::make_unique<Member>(*engine));
  for (size_t i = 0; i < members_.size(); ++i)
    members_[i]->thread =
        StartThread(fmt::format("context {}", i), [this, i] { Run(*members_[i], i); });
}

ContextEngines::~ContextEngines() { Stop(); }

void ContextEngines::Stop() {
  is_stopping_ = true;
  for (const auto& member : members_) member->loop.Wake();
  for (const auto& member : members_)
    if (member->thread.joinable()) member->thread.join();
}

bool ContextEngines::is_any_running() const {
  return std::ranges::any_of(members_,
                             [](const auto& member) { return !member->loop.has_ended(); });
}

// Jobs may still come to an engine that has failed: they are told so.
void ContextEngines::Run(Member& member, size_t index) {
  int64_t num_iterations = 0;
  while (!is_stopping_) {
    // Requests may wait for blocks that leases hold.
    const int64_t num_before = num_iterations;
    num_iterations = member.loop.figures().num_iterations;
    const bool is_waiting = num_iterations == num_before;
    if (member.loop.idle() || is_waiting)
      member.loop.Wait(member.loop.idle() ? kContextRest : kLeaseRest);
    if (member.loop.has_ended()) {
      member.loop.EndAll(kEngineStopped);
      continue;
    }
    try {
      member.loop.Step();
    } catch (const std::exception& failure) {
      member.failure = std::current_exception();
      LogWarn("context server {} has ended: {}", index, failure.what());
    }
  }
  member.loop.EndAll(kEngineStopped);
}

ContextEngines::Member& ContextEngines::Choose(const Request& request) {
  std::vector<ContextRouter::Load> loads;
  for (const auto& member : members_)
    loads.push_back(
        {.is_running = !member->loop.has_ended(), .num_open = member->counts->num_open});
  // One that has ended says so itself.
  return *members_[router_.Choose(request.prompt, request.cache_salt, loads).value_or(0)];
}

std::vector<ContextFigures> ContextEngines::figures() const {
  std::vector<ContextFigures> all;
  for (const auto& member : members_) {
    const EngineLoop::Figures figures = member->loop.figures();
    all.push_back({.num_waiting = figures.num_waiting,
                   .num_running = figures.num_running,
                   .num_held = figures.num_held,
                   .num_iterations = figures.num_iterations,
                   .num_prompts = member->counts->num_prompts,
                   .kv_usage = figures.kv_usage,
                   .is_running = !member->loop.has_ended()});
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
  ++member.counts->num_open;
  job.sink = [sink = std::move(job.sink), counts = member.counts](Delta delta) {
    if (delta.is_last()) --counts->num_open;
    const bool is_computed = delta.is_last() && delta.token >= 0;
    sink(std::move(delta));
    if (is_computed) ++counts->num_prompts;  // once it can be fetched
  };
  const JobId id = member.loop.Submit(std::move(job));
  return [&loop = member.loop, id] { loop.Cancel(id); };
}

}  // namespace wideload::runtime
