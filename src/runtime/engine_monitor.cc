#include "runtime/engine_monitor.h"

#include <algorithm>

#include "runtime/placement_state.h"
#include "runtime/processes/process_team.h"

namespace wideload::runtime {
namespace {

// Whether the rank of `slot` held `expert` in one of its slots.
bool Held(const eplb::Placement& placement, int32_t slot, ExpertId expert) {
  const int32_t first = slot / placement.slots_per_rank() * placement.slots_per_rank();
  const auto begin = placement.slot_expert.begin() + first;
  return std::find(begin, begin + placement.slots_per_rank(), expert) !=
         begin + placement.slots_per_rank();
}

}  // namespace

EngineMonitor::EngineMonitor(Engine& engine)
    : engine_(engine), series_(engine.moe_shape().num_layers(), engine.options().layout.stage()) {
  const moe::MoeShape& shape = engine.moe_shape();
  const auto layers = static_cast<size_t>(shape.num_layers());
  course_.layers = shape.layers;
  course_.num_ranks = engine.options().layout.stage();
  course_.num_stages = engine.options().layout.pp;
  for (int32_t stage = 0; stage < course_.num_stages; ++stage)
    course_.first_ranks.insert(course_.first_ranks.end(),
                               static_cast<size_t>(engine.MoeLayersOf(stage).size()),
                               stage * course_.num_ranks);
  course_.imbalance_sums.resize(layers);
  course_.balancedness_sums.resize(layers);
  course_.fetched_slots.resize(layers);
  course_.now = course_.changed = course_.seen = std::chrono::steady_clock::now();
  for (int32_t r = 0; r < engine.options().num_ranks(); ++r)
    course_.lives.push_back({.host = engine.HostOf(r),
                             .place = parallel::CoordinatesOf(engine.options().layout, r),
                             .ended = course_.now});
  rows_.resize(layers * static_cast<size_t>(course_.num_ranks));
  if (layers == 0) return;
  const exchange::ExchangeShape rows =
      moe::MakeExchangeShape(shape, MakeMoeLayout(shape, engine.options()),
                             compute::PrecisionOf(engine.options().kernels));
  course_.row_bytes = rows.row_bytes;
  course_.return_row_bytes = rows.return_row_bytes;
  experts_.num_experts = static_cast<int32_t>(shape.num_experts);
  experts_.num_ranks = engine.options().layout.moe_ep;
  experts_.routed.resize(layers * static_cast<size_t>(shape.num_experts));
  experts_.placements = StartPlacements(shape, engine.options());
  for (const eplb::Placement& placement : experts_.placements)
    experts_.since.emplace_back(placement.slot_expert.size());
  engine.CountRouted();
}

void EngineMonitor::Note(double seconds) {
  const IterationInfo& info = engine_.last_iteration();
  if (info.iteration < num_noted_) {
    const std::lock_guard lock(mutex_);
    course_.seen = std::chrono::steady_clock::now();
    return;
  }
  num_noted_ = info.iteration + 1;
  const size_t ranks = static_cast<size_t>(course_.num_ranks);
  for (size_t r = 0; r < ranks; ++r) {
    const std::span<const int64_t> rows = engine_.ComputedRows(static_cast<int32_t>(r));
    for (size_t l = 0; l < rows.size(); ++l) rows_[l * ranks + r] = rows[l];
  }
  const rebalance::OnlineBalancer* balancer = engine_.balancer();
  const rebalance::BalancerFigures figures =
      balancer == nullptr ? rebalance::BalancerFigures{} : balancer->figures();

  const std::lock_guard lock(mutex_);
  course_.now = course_.seen = std::chrono::steady_clock::now();
  NoteLives();
  course_.exchange = engine_.exchange_figures();
  NoteSentRows();
  course_.last = {};
  for (const GroupIteration& group : info.groups) {
    course_.last.num_requests += group.num_requests;
    course_.last.num_prompt_requests += group.num_prompt_requests;
    course_.last.num_prompt_tokens += group.num_prompt_tokens;
    course_.last.num_generated_tokens += group.num_generated_tokens;
  }
  NoteRows({.iteration = info.iteration,
            .seconds = seconds,
            .prompt_tokens = course_.last.num_prompt_tokens,
            .generated_tokens = course_.last.num_generated_tokens,
            .fetched_slots = figures.fetched_slots - course_.balancer.fetched_slots});
  if (figures.num_changes > course_.balancer.num_changes) {
    NotePlacements(balancer->placements());
    experts_.generation = figures.num_changes;
    course_.changed_iteration = info.iteration;
    course_.changed = course_.now;
  }
  course_.balancer = figures;
  const std::span<const int32_t> routed = engine_.routed_counts();
  for (size_t i = 0; i < std::min(routed.size(), experts_.routed.size()); ++i)
    experts_.routed[i] += routed[i];
}

void EngineMonitor::NoteLives() {
  for (size_t r = 0; r < course_.lives.size(); ++r)
    course_.lives[r].ended = engine_.EndOf(static_cast<int32_t>(r));
}

void EngineMonitor::NoteSentRows() {
  course_.sent_rows.clear();
  if (engine_.SentRows(0).empty()) return;
  const auto ranks = static_cast<size_t>(course_.num_ranks);
  course_.sent_rows.resize(ranks * ranks);
  int32_t num_hosts = 0;
  for (const RankLife& rank : course_.lives) num_hosts = std::max(num_hosts, rank.host + 1);
  const auto hosts = static_cast<size_t>(num_hosts);
  course_.host_rows.assign(hosts * hosts, 0);
  course_.own_rows = 0;
  for (size_t r = 0; r < course_.lives.size(); ++r) {
    const std::span<const int64_t> sent = engine_.SentRows(static_cast<int32_t>(r));
    const size_t from = r % ranks;
    const auto host_of = [&](size_t rank) { return static_cast<size_t>(course_.lives[rank].host); };
    for (size_t to = 0; to < sent.size(); ++to) {
      course_.sent_rows[from * ranks + to] += sent[to];
      int64_t& level = to == from ? course_.own_rows
                                  : course_.host_rows[host_of(r) * hosts + host_of(r - from + to)];
      level += sent[to];
    }
  }
}

void EngineMonitor::NoteRows(const statistics::IterationFigures& figures) {
  series_.Add(figures, rows_);
  const auto ranks = static_cast<size_t>(course_.num_ranks);
  std::vector<double> loads(ranks);
  for (size_t l = 0; l < course_.layers.size(); ++l) {
    for (size_t r = 0; r < ranks; ++r) loads[r] = static_cast<double>(rows_[l * ranks + r]);
    const double imbalance = eplb::ImbalanceRatio(loads);
    course_.imbalance_sums[l] += imbalance;
    course_.balancedness_sums[l] += 1 / (1 + imbalance);
  }
}

void EngineMonitor::NotePlacements(const std::vector<eplb::Placement>& placements) {
  for (size_t l = 0; l < placements.size(); ++l) {
    const eplb::Placement& before = experts_.placements[l];
    const eplb::Placement& after = placements[l];
    for (int32_t slot = 0; slot < after.num_slots(); ++slot) {
      const ExpertId expert = after.slot_expert[static_cast<size_t>(slot)];
      if (expert == before.slot_expert[static_cast<size_t>(slot)]) continue;
      experts_.since[l][static_cast<size_t>(slot)] = num_noted_ - 1;
      if (!Held(before, slot, expert)) ++course_.fetched_slots[l];
    }
  }
  experts_.placements = placements;
}

EngineCourse EngineMonitor::course() const {
  const std::lock_guard lock(mutex_);
  EngineCourse course = course_;
  course.total = series_.Total();
  course.stretches = series_.stretches();
  course.computed_rows.assign(series_.computed_rows().begin(), series_.computed_rows().end());
  return course;
}

EngineExperts EngineMonitor::experts() const {
  const std::lock_guard lock(mutex_);
  return experts_;
}

}  // namespace wideload::runtime
