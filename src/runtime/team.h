// The ranks of an engine, whatever they are: threads of this process or processes. Used by the
// engine's thread.
#pragma once

#include <memory>
#include <span>
#include <variant>

#include "runtime/processes/process_team.h"
#include "runtime/rank_team.h"

namespace wideload::runtime {

class Team {
  template <class Call>
  auto Visit(Call call) const {
    return std::visit([&](const auto& team) { return call(*team); }, team_);
  }

 public:
  Team(const model::Model& model, const EngineOptions& options)
      : team_(std::make_unique<RankTeam>(model, options)) {}
  Team(const model::Model& model, const EngineOptions& options, const RankLinks& links)
      : team_(std::make_unique<ProcessTeam>(model, options, links)) {}

  // The contracts are those of RankTeam and ProcessTeam.
  void Start() {
    Visit([](auto& team) { team.Start(); });
  }
  void Run(const TeamStep& step) {
    Visit([&](auto& team) { team.Run(step); });
  }
  bool Stop() {
    return Visit([](auto& team) { return team.Stop(); });
  }
  void CheckLives() {
    Visit([](auto& team) { team.CheckLives(); });
  }
  std::span<const int32_t> stuck_ranks() const {
    return Visit([](auto& team) { return team.stuck_ranks(); });
  }
  RankResult result(size_t r) const {
    return Visit([r](auto& team) { return team.result(r); });
  }
  const kv::PagedCache* cache(size_t r, int32_t micro_batch) const {
    return Visit([=](auto& team) { return team.cache(r, micro_batch); });
  }
  FetchResult Fetch(const CachedSequence& from, const CachedSequence& to, int64_t first_block) {
    return Visit([&](auto& team) { return team.Fetch(from, to, first_block); });
  }
  void SetRecorder(statistics::Recorder* recorder) {
    Visit([&](auto& team) { team.SetRecorder(recorder); });
  }
  void CountRouted(bool is_counting) {
    Visit([&](auto& team) { team.CountRouted(is_counting); });
  }
  void Forget(RequestId id) {
    Visit([id](auto& team) { team.Forget(id); });
  }
  std::vector<trace::TrackData> ReadTrace() {
    return Visit([](auto& team) { return team.ReadTrace(); });
  }
  size_t size() const {
    return Visit([](auto& team) { return team.size(); });
  }

 private:
  std::variant<std::unique_ptr<RankTeam>, std::unique_ptr<ProcessTeam>> team_;
};

}  // namespace wideload::runtime
