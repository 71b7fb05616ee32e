#include "runtime/generation_engines.h"

#include <algorithm>
#include <utility>

namespace wideload::runtime {

GenerationEngines::GenerationEngines(std::span<Engine* const> engines, const Common& common,
                                     std::span<TokenEngine* const> others)
    : common_(common),
      num_here_(engines.size()),
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
  for (const auto& member : members_) member->AskToStop();
  for (const auto& member : members_) member->Stop();
}

JobId GenerationEngines::Submit(Job job) {
  std::vector<ServerRouter::Load> loads;
  for (size_t i = 0; i < members_.size(); ++i) {
    const bool can_take = i < num_here_ || job.request.grammar == nullptr;
    loads.push_back(
        {.is_running = can_take && members_[i]->is_running(), .num_open = members_[i]->num_open()});
  }
  // One that has ended says so itself.
  int64_t num_known = 0;
  const size_t chosen =
      router_.Choose(job.request.prompt, job.request.cache_salt, loads, &num_known).value_or(0);
  job.computes_prompt = common_.max_own_prefill && num_known > 0 && job.prompt_logprobs < 0 &&
                        std::ssize(job.request.prompt) - num_known <= *common_.max_own_prefill;
  const JobId id = members_[chosen]->Submit(std::move(job));
  return id * std::ssize(members_) + static_cast<JobId>(chosen);
}

void GenerationEngines::Cancel(JobId id) {
  if (id < 0) return;
  const JobId count = std::ssize(members_);
  members_[static_cast<size_t>(id % count)]->loop().Cancel(id / count);
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
  for (const auto& member : members_) member->EndAll(reason);
}

}  // namespace wideload::runtime
