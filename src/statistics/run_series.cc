#include "statistics/run_series.h"

#include <algorithm>

#include "base/error.h"
#include "eplb/placement/placement.h"

namespace wideload::statistics {
namespace {

void Append(const Stretch& later, Stretch& to) {
  to.num_iterations += later.num_iterations;
  to.seconds += later.seconds;
  to.prompt_tokens += later.prompt_tokens;
  to.generated_tokens += later.generated_tokens;
  to.fetched_slots += later.fetched_slots;
  to.imbalance_sum += later.imbalance_sum;
  to.balancedness_sum += later.balancedness_sum;
  to.highest_imbalance = std::max(to.highest_imbalance, later.highest_imbalance);
  to.num_imbalances += later.num_imbalances;
}

}  // namespace

double Stretch::MeanImbalance() const {
  return num_imbalances == 0 ? 0 : imbalance_sum / static_cast<double>(num_imbalances);
}

double Stretch::MeanBalancedness() const {
  return num_imbalances == 0 ? 1 : balancedness_sum / static_cast<double>(num_imbalances);
}

RunSeries::RunSeries(int32_t num_layers, int32_t num_ranks, size_t max_stretches)
    : num_layers_(num_layers),
      num_ranks_(num_ranks),
      max_stretches_(max_stretches),
      computed_rows_(static_cast<size_t>(num_layers) * static_cast<size_t>(num_ranks)),
      rank_rows_(static_cast<size_t>(num_ranks)) {
  WIDELOAD_CHECK(max_stretches >= 2, "{} stretches", max_stretches);
}

void RunSeries::Add(const IterationFigures& figures, std::span<const int64_t> computed_rows) {
  WIDELOAD_CHECK(computed_rows.size() == computed_rows_.size(), "rows of {} layers and ranks; {}",
                 computed_rows.size(), computed_rows_.size());
  Stretch one{.first_iteration = figures.iteration,
              .num_iterations = 1,
              .seconds = figures.seconds,
              .prompt_tokens = figures.prompt_tokens,
              .generated_tokens = figures.generated_tokens,
              .fetched_slots = figures.fetched_slots,
              .num_imbalances = num_layers_};
  for (size_t i = 0; i < computed_rows.size(); ++i) {
    computed_rows_[i] += computed_rows[i];
    const size_t rank = i % rank_rows_.size();
    rank_rows_[rank] = static_cast<double>(computed_rows[i]);
    if (rank + 1 < rank_rows_.size()) continue;
    const double imbalance = eplb::ImbalanceRatio(rank_rows_);
    one.imbalance_sum += imbalance;
    one.balancedness_sum += 1 / (1 + imbalance);
  }
  one.highest_imbalance = one.MeanImbalance();
  const auto has_room = [this] {
    return !stretches_.empty() && stretches_.back().num_iterations < iterations_per_stretch_;
  };
  if (!has_room() && stretches_.size() == max_stretches_) HalveStretches();
  if (has_room())
    Append(one, stretches_.back());
  else
    stretches_.push_back(one);
}

void RunSeries::HalveStretches() {
  iterations_per_stretch_ *= 2;
  size_t kept = 0;
  for (size_t i = 0; i < stretches_.size(); i += 2) {
    Stretch stretch = stretches_[i];
    if (i + 1 < stretches_.size()) Append(stretches_[i + 1], stretch);
    stretches_[kept++] = stretch;
  }
  stretches_.resize(kept);
}

Stretch RunSeries::Total() const {
  Stretch total;
  if (!stretches_.empty()) total.first_iteration = stretches_.front().first_iteration;
  for (const Stretch& stretch : stretches_) Append(stretch, total);
  return total;
}

}  // namespace wideload::statistics
