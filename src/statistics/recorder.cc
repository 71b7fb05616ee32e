#include "statistics/recorder.h"

#include <algorithm>
#include <charconv>
#include <functional>

#include "base/error.h"

namespace wideload::statistics {
namespace {

constexpr int64_t kBlockBytes = int64_t{4} << 20;

}  // namespace

IterationRange ParseIterationRange(const std::string& text, const std::string& name) {
  IterationRange range{-1, -1};
  const char* const end = text.data() + text.size();
  const auto start = std::from_chars(text.data(), end, range.start);
  const bool has_dash = start.ec == std::errc() && start.ptr != end && *start.ptr == '-';
  const auto stop = has_dash ? std::from_chars(start.ptr + 1, end, range.stop) : start;
  if (!has_dash || stop.ec != std::errc() || stop.ptr != end || range.start < 0 ||
      range.stop <= range.start)
    Throw(ErrorKind::kInvalid,
          "{} is \"{}\"; it must be START-STOP with 0 <= START < STOP (STOP is not recorded), for "
          "example 100-150",
          name, text);
  return range;
}

std::optional<RecordSettings> ChooseRecordSettings(const RecordSources& sources) {
  const auto given = [](const char* text) { return text != nullptr && *text != '\0'; };
  std::string path = sources.flag_path;
  if (path.empty() && given(sources.environment_path)) path = sources.environment_path;
  std::string range = sources.flag_range;
  std::string range_name = "--expert_statistic_iter_range";
  if (range.empty() && given(sources.environment_range)) {
    range = sources.environment_range;
    range_name = "EXPERT_STATISTIC_ITER_RANGE";
  }
  const IterationRange parsed =
      range.empty() ? IterationRange() : ParseIterationRange(range, range_name);
  if (path.empty() && !range.empty())
    Throw(ErrorKind::kInvalid,
          "{} is \"{}\", but there is no folder to record to: give --expert_statistic_path or "
          "EXPERT_STATISTIC_PATH",
          range_name, range);
  if (path.empty()) return std::nullopt;
  return RecordSettings{path, parsed};
}

Recorder::Recorder(const RecorderOptions& options) : options_(options) {
  WIDELOAD_CHECK(options.num_ranks > 0 && options.num_stages > 0 &&
                     options.num_ranks % options.num_stages == 0 && options.num_experts > 0 &&
                     !options.layers.empty() &&
                     std::is_sorted(options.layers.begin(), options.layers.end()) &&
                     options.layers.front() >= 0,
                 "{} ranks, {} stages, {} experts, {} layers", options.num_ranks,
                 options.num_stages, options.num_experts, options.layers.size());
  layer_index_.assign(static_cast<size_t>(options.layers.back()) + 1, -1);
  for (size_t i = 0; i < options.layers.size(); ++i)
    layer_index_[static_cast<size_t>(options.layers[i])] = static_cast<int32_t>(i);

  counts_per_iteration_ = std::ssize(options.layers) * options.num_experts;
  const int64_t iteration_bytes = counts_per_iteration_ * int64_t{sizeof(uint32_t)};
  const int64_t rank_bytes = options.max_bytes / options.num_ranks;
  max_iterations_ =
      std::min(options.range.stop - options.range.start, rank_bytes / iteration_bytes);
  iterations_per_block_ =
      std::clamp<int64_t>(kBlockBytes / iteration_bytes, 1, std::max<int64_t>(max_iterations_, 1));
  const int64_t num_blocks = (max_iterations_ + iterations_per_block_ - 1) / iterations_per_block_;
  for (int32_t r = 0; r < options.num_ranks; ++r) {
    ranks_.push_back(std::make_unique<Rank>());
    ranks_.back()->blocks.resize(static_cast<size_t>(num_blocks));
    if (num_blocks > 0)
      ranks_.back()->blocks[0] =
          Buffer(iterations_per_block_ * counts_per_iteration_ * int64_t{sizeof(uint32_t)});
  }
}

uint32_t* Recorder::CountsOf(const Rank& rank, int64_t index) const {
  if (index >= max_iterations_) return nullptr;
  const Buffer& block = rank.blocks[static_cast<size_t>(index / iterations_per_block_)];
  return reinterpret_cast<uint32_t*>(block.data()) +
         index % iterations_per_block_ * counts_per_iteration_;
}

void Recorder::OpenIteration(Rank& rank, int64_t iteration) {
  if (rank.first_iteration < 0) rank.first_iteration = iteration;
  const auto next = [&rank] {
    return rank.first_iteration + rank.num_ended.load(std::memory_order_relaxed);
  };
  WIDELOAD_CHECK(iteration >= next(), "iteration {} recorded; {} or a later one must be next",
                 iteration, next());
  while (next() < iteration) CountIteration(rank);
}

void Recorder::CountIteration(Rank& rank) {
  const int64_t next = rank.num_ended.load(std::memory_order_relaxed) + 1;
  if (next < max_iterations_ && next % iterations_per_block_ == 0)
    rank.blocks[static_cast<size_t>(next / iterations_per_block_)] =
        Buffer(iterations_per_block_ * counts_per_iteration_ * int64_t{sizeof(uint32_t)});
  rank.num_ended.store(next, std::memory_order_release);
}

void Recorder::Record(EpRank rank, int64_t iteration, LayerId layer,
                      std::span<const int32_t> counts) {
  if (!Wants(iteration)) return;
  WIDELOAD_CHECK(std::ssize(counts) == options_.num_experts &&
                     layer.value < std::ssize(layer_index_) &&
                     layer_index_[static_cast<size_t>(layer.value)] >= 0,
                 "{} counts for layer {}", counts.size(), layer.value);
  Rank& own = *ranks_[static_cast<size_t>(rank.value)];
  OpenIteration(own, iteration);
  uint32_t* target = CountsOf(own, iteration - own.first_iteration);
  if (target == nullptr) return;
  target += int64_t{layer_index_[static_cast<size_t>(layer.value)]} * options_.num_experts;
  for (size_t e = 0; e < counts.size(); ++e) target[e] += static_cast<uint32_t>(counts[e]);
}

void Recorder::EndIteration(EpRank rank, int64_t iteration) {
  if (!Wants(iteration)) return;
  Rank& own = *ranks_[static_cast<size_t>(rank.value)];
  OpenIteration(own, iteration);
  CountIteration(own);
}

void Recorder::RecordIteration(EpRank rank, int64_t iteration, std::span<const int32_t> counts) {
  if (!Wants(iteration)) return;
  WIDELOAD_CHECK(std::ssize(counts) == counts_per_iteration_, "{} counts; {} per iteration",
                 counts.size(), counts_per_iteration_);
  const auto row = static_cast<size_t>(options_.num_experts);
  for (size_t i = 0; i < options_.layers.size(); ++i)
    Record(rank, iteration, LayerId(options_.layers[i]), counts.subspan(i * row, row));
  EndIteration(rank, iteration);
}

int64_t Recorder::num_dropped() const {
  int64_t ended = std::numeric_limits<int64_t>::max();
  for (const auto& rank : ranks_)
    ended = std::min(ended, rank->num_ended.load(std::memory_order_acquire));
  return std::max<int64_t>(0, ended - max_iterations_);
}

ExpertStatistics Recorder::Statistics() const {
  const int32_t ranks_of_stage = options_.num_ranks / options_.num_stages;
  ExpertStatistics statistics{.num_experts = options_.num_experts,
                              .experts_per_token = options_.experts_per_token,
                              .ep_size = ranks_of_stage,
                              .iter_start = options_.range.start,
                              .num_iterations = max_iterations_,
                              .layers = options_.layers,
                              .num_ranks = ranks_of_stage};
  for (const auto& rank : ranks_)
    statistics.num_iterations =
        std::min(statistics.num_iterations, rank->num_ended.load(std::memory_order_acquire));
  if (statistics.num_iterations == 0) return statistics;
  statistics.iter_start = ranks_[0]->first_iteration;
  for (const auto& rank : ranks_)
    WIDELOAD_CHECK(rank->first_iteration == statistics.iter_start,
                   "ranks started to record in iterations {} and {}", statistics.iter_start,
                   rank->first_iteration);
  statistics.counts.resize(statistics.RowOffset(statistics.num_iterations, 0, 0));
  const auto row = static_cast<size_t>(options_.num_experts);
  const auto sums = [&](int64_t iteration, size_t layer, int32_t rank) {
    return statistics.counts.begin() +
           static_cast<int64_t>(statistics.RowOffset(iteration, layer, rank % ranks_of_stage));
  };
  for (int64_t i = 0; i < statistics.num_iterations; ++i)
    for (int32_t r = 0; r < options_.num_ranks; ++r) {
      const uint32_t* counts = CountsOf(*ranks_[static_cast<size_t>(r)], i);
      for (size_t l = 0; l < statistics.layers.size(); ++l)
        std::transform(counts + l * row, counts + (l + 1) * row, sums(i, l, r), sums(i, l, r),
                       std::plus<>());
    }
  return statistics;
}

void Recorder::Write(const std::string& folder, ExistingFolder existing) const {
  const ExpertStatistics statistics = Statistics();
  if (statistics.num_iterations == 0)
    Throw(ErrorKind::kRunFailed,
          "{}: no statistics were written: no iteration from {} on was run to its end", folder,
          options_.range.start);
  WriteStatistics(folder, statistics, existing);
}

}  // namespace wideload::statistics
