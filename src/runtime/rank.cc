#include "runtime/rank.h"

#include "base/error.h"

namespace wideload::runtime {

moe::MoeLayout MakeMoeLayout(const moe::MoeShape& shape, const EngineOptions& options) {
  moe::MoeLayout layout{.num_ranks = options.num_ranks, .split = options.split};
  const auto num_experts = static_cast<int32_t>(shape.num_experts);
  layout.num_slots = options.num_slots > 0 ? options.num_slots : num_experts;
  layout.placements = options.placements;
  if (layout.placements.empty() && num_experts > 0)
    layout.placements.assign(
        shape.layers.size(),
        eplb::ContiguousPlacement(num_experts, layout.num_slots, options.num_ranks));
  layout.chunk_tokens =
      moe::ChunkTokens(options.moe_max_num_tokens, options.num_ranks, options.max_num_tokens);
  moe::ValidateLayout(shape, layout);
  return layout;
}

RankOptions MakeRankOptions(const EngineOptions& options, const moe::MoeLayout& layout,
                            comm::Communicator& group, exchange::Fabric* fabric) {
  return {.rank = group.rank(),
          .num_ranks = options.num_ranks,
          .threads = options.threads_per_rank,
          .kernels = options.kernels,
          .max_num_tokens = options.max_num_tokens,
          .max_batch_size = options.max_batch_size,
          .num_kv_blocks = options.num_kv_blocks,
          .moe_layout = &layout,
          .group = &group,
          .fabric = fabric};
}

namespace {

kv::CacheShape CacheShapeOf(const std::vector<kv::LayerCacheShape>& layers,
                            const RankOptions& options) {
  return {.layers = layers,
          .classes = kv::BlockClasses(
              kv::Windows(layers), options.num_kv_blocks,
              {.max_batch_size = options.max_batch_size, .max_num_tokens = options.max_num_tokens}),
          .dtype = compute::PrecisionOf(options.kernels).kv_cache};
}

}  // namespace

Rank::Rank(const model::Model& model, const RankOptions& options)
    : model_(model),
      options_(options),
      pool_(fmt::format("rank{}", options.rank), options.threads,
            options.threads * options.num_ranks),
      cache_(CacheShapeOf(model::CacheShapes(model.spec()), options)) {
  if (options.group != nullptr) pool_.CountProgress(options.group->progress());
  for (int32_t i = 0; i < options.threads; ++i) samplers_.emplace_back(model.spec().vocab_size);
  const auto max_tokens = static_cast<size_t>(options.max_num_tokens);
  const auto max_batch = static_cast<size_t>(options.max_batch_size);
  ids_.reserve(max_tokens);
  positions_.reserve(max_tokens);
  logits_rows_.reserve(max_tokens);
  first_logit_.reserve(max_batch);
  sequences_.reserve(max_batch * cache_.shape().classes.size());
  outputs_.resize(max_batch);
}

void Rank::Start() {
  // One task per thread is likely but not certain; each task that runs checks the thread it is on.
  pool_.Run(64, [](int64_t, int) { compute::CheckFloatingPointMode(); });
  if (options_.fabric == nullptr) return;
  const moe::MoeShape& shape = model_.spec().moe;
  exchange_.emplace(
      moe::MakeExchangeShape(shape, *options_.moe_layout, compute::PrecisionOf(options_.kernels)),
      *options_.fabric, *options_.group, &pool_);
  moe_.emplace(shape, *options_.moe_layout, *exchange_, *options_.group);
}

void Rank::SetRecorder(statistics::Recorder* recorder) {
  recorder_ = recorder;
  CountRouted(recorder != nullptr);
}

void Rank::CountRouted(bool is_counting) {
  if (moe_) moe_->CountRouted(is_counting);
}

RankResult Rank::result() const {
  return {.outputs = outputs_,
          .computed_rows = moe_ ? moe_->computed_rows() : std::span<const int64_t>(),
          .exchange = exchange_ ? &exchange_figures_ : nullptr};
}

void Rank::Run(std::span<const PlanEntry> entries, int64_t iteration) {
  WIDELOAD_CHECK(entries.size() <= outputs_.size(), "{} entries, batch size {}", entries.size(),
                 outputs_.size());
  workspace_.Reset();
  BuildBatch(entries);
  if (moe_) moe_->BeginIteration(iteration);
  const model::RankContext context{.exec = {options_.kernels, &pool_},
                                   .workspace = &workspace_,
                                   .cache = &cache_,
                                   .moe = moe_ ? &*moe_ : nullptr};
  const model::Batch batch{.iteration = iteration,
                           .ids = ids_,
                           .positions = positions_,
                           .sequences = sequences_,
                           .num_block_classes = static_cast<int64_t>(cache_.shape().classes.size()),
                           .logits_rows = logits_rows_};
  const TensorView logits = model_.Forward(context, batch);
  if (recorder_) recorder_->RecordIteration(EpRank(options_.rank), iteration, routed_counts());
  SampleAll(entries, logits);
  ReadExchangeFigures();
}

void Rank::ReadExchangeFigures() {
  if (!exchange_) return;
  exchange_figures_.traffic = exchange_->traffic();
  for (size_t kind = 0; kind < exchange_figures_.waits.size(); ++kind)
    exchange_figures_.waits[kind] =
        exchange_->wait_statistics(static_cast<exchange::WaitKind>(kind));
}

void Rank::BuildBatch(std::span<const PlanEntry> entries) {
  ids_.clear();
  positions_.clear();
  logits_rows_.clear();
  first_logit_.clear();
  const size_t num_classes = cache_.shape().classes.size();
  sequences_.resize(num_classes * entries.size());
  for (size_t e = 0; e < entries.size(); ++e) {
    const PlanEntry& entry = entries[e];
    const auto first_row = static_cast<int64_t>(ids_.size());
    for (size_t c = 0; c < num_classes; ++c)
      sequences_[c * entries.size() + e] = {.first_row = first_row,
                                            .num_tokens = entry.count,
                                            .start_position = entry.start,
                                            .blocks = entry.sequence->tables[c].blocks};
    const bool all = entry.sequence->request.prompt_logits;
    first_logit_.push_back(all || entry.sample ? static_cast<int32_t>(logits_rows_.size()) : -1);
    for (int64_t i = 0; i < entry.count; ++i) {
      ids_.push_back(entry.sequence->tokens[static_cast<size_t>(entry.start + i)]);
      positions_.push_back(static_cast<int32_t>(entry.start + i));
      if (all || (entry.sample && i + 1 == entry.count))
        logits_rows_.push_back(static_cast<int32_t>(first_row + i));
    }
  }
}

void Rank::SampleAll(std::span<const PlanEntry> entries, const TensorView& logits) {
  const auto sample = [&](int64_t i, int thread) {
    const PlanEntry& entry = entries[static_cast<size_t>(i)];
    RankOutput& output = outputs_[static_cast<size_t>(i)];
    output.token = -1;
    output.logprobs.clear();
    output.logits = {};
    const int32_t first = first_logit_[static_cast<size_t>(i)];
    if (first < 0) return;
    const int64_t rows = entry.sequence->request.prompt_logits ? entry.count : 1;
    output.logits = logits.Rows(first, rows);
    if (!entry.sample) return;
    const Sequence& sequence = *entry.sequence;
    const Request& request = sequence.request;
    const float* row = output.logits.row<float>(rows - 1);
    const auto generated = static_cast<int64_t>(sequence.tokens.size()) - sequence.prompt_length;
    output.token = samplers_[static_cast<size_t>(thread)].Sample(
        {.logits = {row, static_cast<size_t>(logits.dim(1))},
         .tokens = sequence.tokens,
         .prompt_length = sequence.prompt_length,
         .index = request.index,
         .bias = request.logit_bias,
         .forbidden = generated < request.min_tokens ? std::span<const int32_t>(request.eos_ids)
                                                     : std::span<const int32_t>()},
        request.sampling, output.logprobs);
  };
  pool_.Run(static_cast<int64_t>(entries.size()), sample);
}

}  // namespace wideload::runtime
