// What the engine asks of its ranks at once: plain values, valid while it lasts.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/wait.h"
#include "moe/placement_table.h"
#include "parallel/mapping.h"
#include "rebalance/placement_change.h"
#include "runtime/context_rows.h"
#include "runtime/scheduler.h"

namespace wideload::runtime {

// An iteration of one micro-batch, which goes through one stage after the other.
struct MicroBatch {
  int64_t iteration = -1;  // -1: nothing is computed
  int32_t index = 0;
  std::vector<std::vector<PlanEntry>> groups;        // [layout.dp]
  std::optional<rebalance::PlacementChange> change;  // that it announces
  moe::SharedPlacements announced;                   // the table after it; of a team of threads

  bool is_empty() const { return iteration < 0; }
  bool HasEntries() const {
    return std::ranges::any_of(groups, [](const auto& entries) { return !entries.empty(); });
  }
  // Whether a token is to be sampled within a grammar.
  bool HasGrammar() const {
    const auto samples = [](const PlanEntry& entry) {
      const Request& request = entry.sequence->request;
      return entry.sample && (request.grammar != nullptr || !request.first_allowed.empty());
    };
    return !is_empty() && std::ranges::any_of(groups, [&](const auto& entries) {
      return std::ranges::any_of(entries, samples);
    });
  }
  int64_t NumTokens(size_t group) const {
    int64_t tokens = 0;
    for (const PlanEntry& entry : groups[group]) tokens += entry.count;
    return tokens;
  }
  // Of the group of ranks that has most to compute.
  int64_t most_tokens() const {
    int64_t most = 0;
    for (size_t g = 0; g < groups.size(); ++g) most = std::max(most, NumTokens(g));
    return most;
  }
};

// Of all ranks.
struct TeamStep {
  std::span<MicroBatch* const> stages;  // what each computes now
  // Fills Sequence::allowed of the first stage's batch; called once, on the engine's thread, and
  // where ranks are threads while they compute. Empty: nothing is to be filled.
  std::function<void()> note_allowed = {};
  // What is to be done beside the iteration; called once, after note_allowed, when ranks have what
  // they need to compute: on the engine's thread, or on another one while that computes. Empty:
  // nothing.
  std::function<void()> meanwhile = {};
};

// Of one rank.
struct RankStep {
  std::span<const PlanEntry> entries;
  int64_t iteration = -1;                // -1: nothing is computed
  int64_t most_tokens = 0;               // that any group computes in it
  moe::SharedPlacements announced = {};  // the table after the change that it announces, or null
  int32_t micro_batch = 0;
  // Of this rank, that the one before it in the pipeline has computed when the step ends.
  int64_t incoming_tokens = 0;
  // Raised once Sequence::allowed of this step's batches may be read; null: it may.
  EventWord* allowed_word = nullptr;
  uint32_t allowed_value = 0;  // that it then has
  // Raised when little is left of the step: whoever waits for its end wakes up meanwhile. May be
  // null.
  EventWord* ending_word = nullptr;
  uint32_t ending_value = 0;  // that it then has
};

// Whether the outputs of a group are on this rank: the first of the group in the last stage.
inline bool HasOutputs(const parallel::Layout& layout, int32_t rank) {
  const parallel::Coordinates place = parallel::CoordinatesOf(layout, rank);
  return place.tp == 0 && place.cp == 0 && place.pp + 1 == layout.pp;
}

// The part of a step that a rank has, but for what it announces.
inline RankStep StepOf(const TeamStep& step, const parallel::Layout& layout, int32_t rank) {
  const parallel::Coordinates place = parallel::CoordinatesOf(layout, rank);
  const auto stage = static_cast<size_t>(place.pp);
  const auto group = static_cast<size_t>(place.dp);
  RankStep part;
  if (stage > 0 && !step.stages[stage - 1]->is_empty())
    part.incoming_tokens =
        ContextRows(step.stages[stage - 1]->NumTokens(group), layout.cp).PlacesOf(place.cp).size();
  const MicroBatch& own = *step.stages[stage];
  if (own.is_empty()) return part;
  part.entries = own.groups[group];
  part.iteration = own.iteration;
  part.most_tokens = own.most_tokens();
  part.micro_batch = own.index;
  return part;
}

}  // namespace wideload::runtime
