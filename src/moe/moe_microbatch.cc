// What MoeRunner does in MoeMode::kMicrobatch.
#include <algorithm>

#include "eplb/placement/placement.h"
#include "moe/moe_pass.h"
#include "trace/trace.h"

namespace wideload::moe {

using trace::Span;
using trace::SpanKind;

// The counts of an iteration are known to all ranks once it has ended, since each has had the rows
// of all: they are the same everywhere, and nobody has waited for them.
void MoeRunner::SplitByAgreed() {
  const size_t per_layer = agreed_.size() / choosers_.size();
  std::vector<double>& loads = rank_loads_;
  for (auto layer = static_cast<size_t>(layers_.begin); layer < static_cast<size_t>(layers_.end);
       ++layer) {
    const Meter meter(layout_.is_metered, layer_times_[layer].balancing_ns);
    choosers_[layer]->Prepare(std::span(agreed_).subspan(layer * per_layer, per_layer));
    if (first_round_ == 0 || layout_.split != eplb::SplitMode::kOptimal) continue;
    loads.assign(static_cast<size_t>(layout_.num_ranks), 0);
    const std::span<const int32_t> quotas = choosers_[layer]->quotas();
    const auto slots_per_rank = static_cast<size_t>(layout_.slots_per_rank());
    for (size_t slot = 0; slot < quotas.size(); ++slot)
      loads[slot / slots_per_rank] += quotas[slot];
    known_imbalance_sum_ += eplb::ImbalanceRatio(loads);
  }
}

void MoeRunner::DispatchByAgreed(const Pass& pass, int64_t chunk) {
  const auto layer = static_cast<size_t>(pass.moe_index);
  const std::span<const int32_t> ids = pass.Ids(chunk);
  const std::span<int32_t> slots = std::span(slots_).first(ids.size());
  {
    const Span span(SpanKind::kSplit, chunk);
    const Meter meter(layout_.is_metered, layer_times_[layer].balancing_ns);
    choosers_[layer]->ChooseSlotsInProportion(EpRank(group_.rank()), ids, slots);
  }
  SendRows(pass, chunk, slots);
  rows_per_slot_ = static_cast<int64_t>(ids.size()) / layout_.num_slots;
}

// Computes the rows of one round, of the sources that are here. False when there are none.
bool MoeRunner::Serve(const compute::Exec& exec, Workspace& workspace) {
  // Fewer rows take hardly more time than one: then two computations cost as much as the wait that
  // they could save others.
  constexpr int64_t kRowsWorthParting = 16;
  using Order = exchange::Exchange::Order;
  const bool is_parted = rows_per_slot_ >= kRowsWorthParting;
  const auto taken = exchange_.TakeRows(is_parted ? Order::kOwnLast : Order::kTogether);
  if (!taken) return false;
  const int64_t round = taken->round - first_round_;
  const size_t layer = LayerOf(round);
  const size_t num_experts = counts_.size();
  int32_t* const counted =
      counted_.data() + layer * static_cast<size_t>(layout_.num_ranks) * num_experts;
  for (const int source : taken->sources) {
    const std::span<const int32_t> counts = exchange_.CountsOf(source);
    int32_t* const row = counted + static_cast<size_t>(source) * num_experts;
    for (size_t e = 0; e < num_experts; ++e) row[e] += counts[e];
  }
  const std::span<const compute::ExpertWeights* const> slots =
      store_.Layer(static_cast<int32_t>(layer));
  for (size_t s = 0; s < groups_.size(); ++s) {
    groups_[s] = {slots[s], taken->rows[s].x_rows, taken->rows[s].y_rows};
    computed_rows_[layer] += static_cast<int64_t>(groups_[s].x_rows.size());
  }
  if (is_parted && taken->sources.size() == 1 && taken->sources[0] == group_.rank()) {
    ComputeOwn(exec, workspace, round);
  } else {
    ComputeGroups(exec, workspace, groups_, round);
  }
  const trace::AtLayer at(shape_.layers[layer]);
  const Span span(SpanKind::kReturn, round % num_rounds_);
  exchange_.Return();
  return true;
}

void MoeRunner::ComputeGroups(const compute::Exec& exec, Workspace& workspace,
                              std::span<const compute::ExpertGroup> groups, int64_t round) {
  const size_t layer = LayerOf(round);
  const trace::AtLayer at(shape_.layers[layer]);
  const Meter meter(layout_.is_metered, layer_times_[layer].computing_ns);
  const Span span(SpanKind::kExperts, round % num_rounds_);
  const Workspace::Scope scope(workspace);
  compute::ExpertMlp(exec, groups, shape_.activation, workspace);
}

// The own rows, which nobody else waits for, a few slots at a time: between them others' rows are
// computed, for which somebody does.
void MoeRunner::ComputeOwn(const compute::Exec& exec, Workspace& workspace, int64_t round) {
  constexpr size_t kParts = 8;
  own_x_rows_.clear();
  own_y_rows_.clear();
  for (const compute::ExpertGroup& group : groups_) {
    own_x_rows_.insert(own_x_rows_.end(), group.x_rows.begin(), group.x_rows.end());
    own_y_rows_.insert(own_y_rows_.end(), group.y_rows.begin(), group.y_rows.end());
  }
  own_groups_ = groups_;
  size_t row = 0;
  for (compute::ExpertGroup& group : own_groups_) {
    const size_t count = group.x_rows.size();
    group.x_rows = std::span(own_x_rows_).subspan(row, count);
    group.y_rows = std::span(own_y_rows_).subspan(row, count);
    row += count;
  }
  exchange_.PutOwnAside();
  const size_t step = (own_groups_.size() + kParts - 1) / kParts;
  for (size_t begin = 0; begin < own_groups_.size(); begin += step) {
    while (begin > 0 && Serve(exec, workspace)) {
    }
    const size_t count = std::min(step, own_groups_.size() - begin);
    ComputeGroups(exec, workspace, std::span(own_groups_).subspan(begin, count), round);
  }
  exchange_.TakeUpOwn();
}

// Chunks are sent as far as there are buffers. While its results are awaited, a rank computes for
// others, those furthest behind first; once they are home it computes what else has come, so that
// nobody waits for its attention, and goes on.
void MoeRunner::RunMicrobatch(const Pass& pass) {
  int64_t num_combined = 0;
  const auto combine_next = [&] {
    {
      const Span span(SpanKind::kReceive, num_combined);
      while (!exchange_.HasReturns())
        if (!Serve(pass.exec, pass.workspace)) exchange_.WaitForWork();
    }
    Combine(pass, num_combined++);
  };
  for (int64_t chunk = 0; chunk < num_rounds_; ++chunk) {
    if (chunk - num_combined == layout_.num_buffers) combine_next();
    Publish(pass, chunk);
    DispatchByAgreed(pass, chunk);
  }
  while (num_combined < num_rounds_) combine_next();
  Poll(pass.exec, pass.workspace);
}

void MoeRunner::Poll(const compute::Exec& exec, Workspace& workspace) {
  if (!IsPolled()) return;
  while (Serve(exec, workspace)) {
  }
}

void MoeRunner::FinishIteration(const compute::Exec& exec, Workspace& workspace) {
  if (layout_.mode != MoeMode::kMicrobatch) return;
  while (!exchange_.HasServedAll())
    if (!Serve(exec, workspace)) exchange_.WaitForWork();
  first_round_ += num_rounds_ * layers_.size();
  std::swap(agreed_, counted_);
  std::fill(counted_.begin(), counted_.end(), 0);
}

}  // namespace wideload::moe
