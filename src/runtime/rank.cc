#include "runtime/rank.h"

#include "base/error.h"
#include "exchange/fabric_part.h"
#include "runtime/cache_part.h"

namespace wideload::runtime {

moe::SlotOptions SlotOptionsOf(const EngineOptions& options) {
  return {.storage = options.slot_storage,
          .num_spare = options.num_spare_slots,
          .bytes_per_second = options.migration_bytes_per_second};
}

RankOptions MakeRankOptions(const model::Model& model, const EngineOptions& options,
                            const PlacementState& placements, comm::Communicator& group,
                            exchange::Fabric* fabric, exchange::DeviceRows* device_rows) {
  moe::SlotOptions slots = SlotOptionsOf(options);
  slots.rank = group.rank();
  const parallel::Coordinates place = parallel::CoordinatesOf(options.layout, group.rank());
  slots.ep_rank = place.moe_ep;
  slots.layers = options.MoeLayersOf(place.pp, model.spec().num_layers(), model.spec().moe.layers);
  slots.progress = &group.progress();
  slots.trace = options.trace;
  return {.rank = group.rank(),
          .layout = options.layout,
          .threads = options.threads_per_rank,
          .kernels = options.kernels,
          .device = options.device,
          .device_kernels = options.device_kernels,
          .max_num_tokens = options.max_num_tokens,
          .max_batch_size = options.max_batch_size,
          .cache_shape = CacheShapeOf(model.spec(), options, group.rank()),
          .num_micro_batches = options.num_micro_batches,
          .layers = options.LayersOf(place.pp, model.spec().num_layers()),
          .placements = &placements,
          .slots = slots,
          .group = &group,
          .fabric = fabric,
          .device_rows = device_rows,
          .trace = options.trace,
          .is_metered = options.is_metered,
          .cache_memory = options.cache_memory.empty()
                              ? std::span<std::byte>()
                              : options.cache_memory[static_cast<size_t>(group.rank())]};
}

kv::CacheShape CacheShapeOf(const model::ModelSpec& spec, const EngineOptions& options, int rank) {
  const parallel::Coordinates place = parallel::CoordinatesOf(options.layout, rank);
  const std::vector<kv::LayerCacheShape> layers =
      model::CacheShapes(spec, {.rank = place.tp, .size = options.layout.tp},
                         options.LayersOf(place.pp, spec.num_layers()));
  return {.layers = layers,
          .classes = kv::BlockClasses(kv::Windows(layers), options.num_kv_blocks,
                                      {.max_batch_size = options.max_batch_size,
                                       .max_num_tokens = options.max_num_tokens,
                                       .num_ranks = options.layout.cp}),
          .dtype = compute::PrecisionOf(options.kernels).kv_cache};
}

int64_t CacheBytesOf(const model::ModelSpec& spec, const EngineOptions& options, int rank) {
  return CacheShapeOf(spec, options, rank).num_bytes() * options.num_micro_batches;
}

namespace {

// The engine's thread finds the tokens that may come next while this rank computes.
void WaitForAllowed(const RankStep& step) {
  constexpr std::chrono::milliseconds kSlice{10};
  if (step.allowed_word == nullptr) return;
  for (uint32_t seen; (seen = step.allowed_word->Load()) != step.allowed_value;)
    step.allowed_word->Sleep(seen, kSlice);
}

}  // namespace

Rank::Rank(const model::Model& model, const RankOptions& options)
    : model_(model),
      options_(options),
      pool_(fmt::format("rank{}", options.rank), options.threads,
            options.threads * options.layout.world()),
      workspace_(options.device != nullptr ? &options.device->memory() : nullptr) {
  WIDELOAD_CHECK((options.device != nullptr) == compute::IsOnDevice(options.kernels),
                 "kernels {} {} a device", KernelSetName(options.kernels),
                 options.device != nullptr ? "with" : "without");
  const kv::CacheShape& shape = options.cache_shape;
  if (options.device != nullptr) {
    stream_ = options.device->MakeStream();
    cache_memory_ = options.device->Allocate(shape.num_bytes() * options.num_micro_batches);
    caches_ = CachesIn(cache_memory_.bytes(), shape, options.num_micro_batches);
  } else if (!options.cache_memory.empty())
    caches_ = CachesIn(options.cache_memory, shape, options.num_micro_batches);
  else
    for (int32_t i = 0; i < options.num_micro_batches; ++i) caches_.emplace_back(shape);
  if (options.group != nullptr) pool_.CountProgress(options.group->progress());
  if (options.trace != nullptr)
    track_ = &options.trace->AddTrack(options.rank, fmt::format("rank {}", options.rank));
  for (int32_t i = 0; i < options.threads; ++i) samplers_.emplace_back(model.spec().vocab_size);
  const auto max_tokens = static_cast<size_t>(options.max_num_tokens);
  const auto max_batch = static_cast<size_t>(options.max_batch_size);
  ids_.reserve(max_tokens);
  positions_.reserve(max_tokens);
  logits_rows_.reserve(max_tokens);
  first_logit_.reserve(max_batch);
  const size_t max_parts = max_batch + ContextRows(0, options.layout.cp).pieces().size();
  parts_.reserve(max_parts);
  sequences_.reserve(max_parts * shape.classes.size());
  outputs_.resize(max_batch);
}

void Rank::Start() {
  // One task per thread is likely but not certain; each task that runs checks the thread it is on.
  pool_.Run(64, [](int64_t, int) { compute::CheckFloatingPointMode(); });
  if (options_.layout.tp > 1)
    tensor_ = options_.group->MakePart(
        {.first = options_.rank - options_.tensor_rank().rank, .num_ranks = options_.layout.tp});
  if (options_.layout.cp > 1) {
    const parallel::RankStride ranks = parallel::ContextGroup(options_.layout, options_.rank);
    context_ = options_.group->MakePart(
        {.first = ranks.first, .num_ranks = ranks.count, .stride = ranks.stride});
  }
  if (options_.layout.pp > 1) JoinPipeline();
  if (options_.fabric != nullptr) MakeExchange();
}

// All ranks make the links of even stages before those of odd ones; who has none is a part alone.
void Rank::JoinPipeline() {
  const int32_t size = options_.layout.stage();
  const int32_t stage = options_.place().pp;
  stage_ = options_.group->MakePart({.first = stage * size, .num_ranks = size});
  for (const int32_t parity : {0, 1}) {
    const bool sends = stage % 2 == parity;
    const bool is_alone = sends ? is_last_stage() : is_first_stage();
    pipeline_.links[parity] =
        options_.group->MakePart({.first = options_.rank - (sends || is_alone ? 0 : size),
                                  .num_ranks = is_alone ? 1 : 2,
                                  .stride = size});
  }
  if (is_first_stage()) return;
  for (Buffer& rows : pipeline_.rows)
    rows = Buffer(options_.max_num_tokens * model_.spec().hidden * DTypeBytes(DType::kF32));
}

void Rank::MakeExchange() {
  const moe::MoeShape& shape = model_.spec().moe;
  const PlacementState& placements = *options_.placements;
  const int32_t part = options_.place().moe_tp;
  slots_.emplace(placements.experts(part), *placements.newest(), options_.slots);
  if (placements.sums(part) != nullptr) slots_->Verify(*placements.sums(part), pool_);
  if (options_.layout.moe_tp > 1) {
    const parallel::RankStride ranks = parallel::ExpertTensorGroup(options_.layout, options_.rank);
    expert_group_ = options_.group->MakePart(
        {.first = ranks.first, .num_ranks = ranks.count, .stride = ranks.stride});
  }
  comm::Communicator& group = stage_ != nullptr ? *stage_ : *options_.group;
  if (stage_ != nullptr)
    stage_fabric_ = std::make_unique<exchange::FabricPart>(
        *options_.fabric, options_.rank - group.rank(), group.size());
  if (options_.device_rows != nullptr)
    mover_ = options_.device_rows->MoverOf(group.rank(), *stream_);
  exchange_.emplace(
      moe::MakeExchangeShape(shape, placements.layout(), compute::PrecisionOf(options_.kernels)),
      stage_fabric_ != nullptr ? *stage_fabric_ : *options_.fabric, group, &pool_, mover_.get());
  moe_.emplace(shape, placements.layout(),
               moe::MoeRunner::Parts{.exchange = *exchange_,
                                     .group = group,
                                     .slots = *slots_,
                                     .expert_group = expert_group_.get(),
                                     .layers = options_.slots.layers},
               placements.newest());
}

// One change at most is announced and not in use.
void Rank::MovePlacements(const RankStep& step) {
  WIDELOAD_CHECK(slots_, "placements of a rank without experts");
  if (announced_ && step.iteration >= announced_for_) UsePlacements(std::move(announced_));
  if (!step.announced) return;
  const int64_t ahead = AnnouncedAhead(options_.slots.storage);
  if (ahead == 0) return UsePlacements(step.announced);
  WIDELOAD_CHECK(!announced_, "generation {} announced before the use of {}",
                 step.announced->generation, announced_->generation);
  slots_->Announce(*step.announced);
  announced_ = step.announced;
  announced_for_ = step.iteration + ahead;
}

void Rank::UsePlacements(moe::SharedPlacements table) {
  WIDELOAD_CHECK(slots_ && moe_, "placements of a rank without experts");
  slots_->Use(*table);
  moe_->UsePlacements(std::move(table));
  const moe::ExpertSums* const sums = options_.placements->sums(options_.place().moe_tp);
  if (sums != nullptr) slots_->Verify(*sums, pool_);
}

void Rank::SetRecorder(statistics::Recorder* recorder) {
  recorder_ = recorder;
  CountRouted(counts_are_wanted_);
}

void Rank::CountRouted(bool is_counting) {
  counts_are_wanted_ = is_counting;
  if (moe_) moe_->CountRouted(is_counting || recorder_ != nullptr);
}

RankResult Rank::result() const {
  return {.outputs = outputs_,
          .computed_rows = moe_ ? moe_->computed_rows() : std::span<const int64_t>(),
          .routed_counts = routed_counts(),
          .exchange = exchange_ ? &exchange_figures_ : nullptr,
          .sent_rows = exchange_ ? exchange_->rows_to() : std::span<const int64_t>(),
          .times = {.layers = moe_ ? moe_->layer_times() : std::span<const moe::LayerTimes>(),
                    .moving_ns = moving_ns_,
                    .computing_ns = computing_ns_},
          .ended = ended_};
}

void Rank::Run(const RankStep& step) {
  const trace::OnTrack on(track_);
  pipeline_.num_outgoing = 0;
  const int64_t begin = options_.is_metered ? ThreadCpuNs() : 0;
  if (step.iteration >= 0) Compute(step);
  if (options_.is_metered) computing_ns_ = ThreadCpuNs() - begin;
  if (options_.layout.pp > 1) HandOver(step.incoming_tokens);
  ended_ = std::chrono::steady_clock::now();
}

// Both ends of a link know whether there is anything to hand over.
void Rank::HandOver(int64_t incoming_tokens) {
  const int64_t row_bytes = model_.spec().hidden * DTypeBytes(DType::kF32);
  for (const int32_t parity : {0, 1}) {
    comm::Communicator& link = *pipeline_.links[parity];
    if (options_.place().pp % 2 == parity) {
      if (is_last_stage() || pipeline_.num_outgoing == 0) continue;
      const TensorView& rows = pipeline_.outgoing;
      link.Broadcast(
          {reinterpret_cast<std::byte*>(rows.row<float>(0)), static_cast<size_t>(rows.num_bytes())},
          0);
    } else if (!is_first_stage() && incoming_tokens > 0) {
      const Buffer& next = pipeline_.rows[1 - pipeline_.current];
      link.Broadcast({next.data(), static_cast<size_t>(incoming_tokens * row_bytes)}, 0);
    }
  }
  pipeline_.current = 1 - pipeline_.current;
}

// The hidden states that the layers of this stage begin with.
TensorView Rank::TakeRows(const model::RankContext& context, const model::Batch& batch) {
  if (is_first_stage()) return model_.Embed(context, batch);
  return pipeline_.rows[pipeline_.current].View(
      DType::kF32, {static_cast<int64_t>(batch.ids.size()), model_.spec().hidden});
}

void Rank::Compute(const RankStep& step) {
  trace::SetIteration(step.iteration);
  const std::span<const PlanEntry> entries = step.entries;
  WIDELOAD_CHECK(entries.size() <= outputs_.size(), "{} entries, batch size {}", entries.size(),
                 outputs_.size());
  workspace_.Reset();
  BuildBatch(entries);
  const trace::Span span(trace::SpanKind::kIteration, std::ssize(ids_));
  if (moe_) {
    const int64_t begin = options_.is_metered ? ThreadCpuNs() : 0;
    MovePlacements(step);
    if (options_.is_metered) moving_ns_ = ThreadCpuNs() - begin;
    const int64_t ranks = int64_t{options_.layout.tp} * options_.layout.cp;
    moe_->BeginIteration(step.iteration, (step.most_tokens + ranks - 1) / ranks);
  }
  const model::RankContext context{.exec = {.kernels = options_.kernels,
                                            .pool = &pool_,
                                            .stream = stream_.get(),
                                            .device_kernels = options_.device_kernels},
                                   .workspace = &workspace_,
                                   .cache = &caches_[static_cast<size_t>(step.micro_batch)],
                                   .moe = moe_ ? &*moe_ : nullptr,
                                   .tensor = tensor_.get(),
                                   .context = context_.get()};
  const model::Batch batch{
      .iteration = step.iteration,
      .ids = ids_,
      .positions = positions_,
      .sequences = sequences_,
      .num_block_classes = static_cast<int64_t>(caches_.front().shape().classes.size()),
      .logits_rows = logits_rows_,
      .row_ends = row_ends_};
  const TensorView h = TakeRows(context, batch);
  model_.Layers(context, batch, options_.layers.begin, options_.layers.end, h);
  if (recorder_) recorder_->RecordIteration(EpRank(options_.rank), step.iteration, routed_counts());
  if (is_last_stage()) {
    const TensorView logits = model_.Head(context, batch, h);
    if (step.ending_word != nullptr) step.ending_word->Publish(step.ending_value);
    if (HasOutputs(options_.layout, options_.rank)) SampleAll(step, OnHost(logits));
  }
  pipeline_.outgoing = h;
  pipeline_.num_outgoing = h.dim(0);
  if (moe_) moe_->FinishIteration(context.exec, workspace_);
  ReadExchangeFigures();
}

void Rank::ReadExchangeFigures() {
  if (!exchange_ || !moe_) return;
  exchange_figures_.traffic = exchange_->traffic();
  exchange_figures_.known_imbalance_sum = moe_->imbalance_sum_of_known_counts();
  for (size_t kind = 0; kind < exchange_figures_.waits.size(); ++kind)
    exchange_figures_.waits[kind] =
        exchange_->wait_statistics(static_cast<exchange::WaitKind>(kind));
}

// The entries, in one piece of the rows after the other.
void Rank::CutEntries(std::span<const PlanEntry> entries, const ContextRows& rows) {
  parts_.clear();
  for (const ContextRows::Piece& piece : rows.pieces()) {
    int64_t first = 0;  // of the entry
    for (const PlanEntry& entry : entries) {
      const int64_t begin = std::max(first, piece.rows.begin);
      const int64_t end = std::min(first + entry.count, piece.rows.end);
      if (begin < end)
        parts_.push_back({.entry = &entry,
                          .first_row = piece.place + begin - piece.rows.begin,
                          .num_tokens = end - begin,
                          .start_position = entry.start + begin - first});
      first += entry.count;
    }
  }
}

void Rank::BuildBatch(std::span<const PlanEntry> entries) {
  ids_.clear();
  positions_.clear();
  row_ends_.clear();
  logits_rows_.clear();
  first_logit_.clear();
  sequences_.clear();
  int64_t num_rows = 0;
  for (const PlanEntry& entry : entries) num_rows += entry.count;
  const ContextRows rows(num_rows, options_.layout.cp);
  CutEntries(entries, rows);
  for (int32_t r = 0; r < options_.layout.cp && context_ != nullptr; ++r)
    row_ends_.push_back(rows.PlacesOf(r).end);
  for (size_t c = 0; c < caches_.front().shape().classes.size(); ++c)
    for (const EntryPart& part : parts_)
      sequences_.push_back({.first_row = part.first_row,
                            .num_tokens = part.num_tokens,
                            .start_position = part.start_position,
                            .blocks = part.entry->sequence->tables[c].blocks});
  const parallel::Shard own = rows.PlacesOf(options_.place().cp);
  for (const EntryPart& part : parts_) {
    if (part.first_row < own.begin || part.first_row >= own.end) continue;
    for (int64_t position = part.start_position; position < part.start_position + part.num_tokens;
         ++position) {
      ids_.push_back(part.entry->sequence->tokens[static_cast<size_t>(position)]);
      positions_.push_back(static_cast<int32_t>(position));
    }
  }
  int64_t first_row = 0;
  for (const PlanEntry& entry : entries) {
    const bool all = entry.sequence->request.prompt_logits;
    first_logit_.push_back(all || entry.sample ? static_cast<int32_t>(logits_rows_.size()) : -1);
    for (int64_t i = all ? 0 : entry.count - 1; i < entry.count && (all || entry.sample); ++i)
      logits_rows_.push_back(static_cast<int32_t>(rows.PlaceOf(first_row + i)));
    first_row += entry.count;
  }
}

// Logits where the sampler and the engine can read them, until the next iteration.
TensorView Rank::OnHost(const TensorView& logits) {
  if (stream_ == nullptr) return logits;
  if (logits_.num_bytes() < logits.num_bytes())
    logits_ = options_.device->AllocateHost(logits.num_bytes());
  stream_->Copy(logits_.data(), logits.raw(), logits.num_bytes());
  stream_->Synchronize();
  return TensorView(logits.dtype(), logits.shape(), logits_.data());
}

void Rank::SampleAll(const RankStep& step, const TensorView& logits) {
  const trace::Span span(trace::SpanKind::kSample);
  const std::span<const PlanEntry> entries = step.entries;
  WaitForAllowed(step);
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
                                                     : std::span<const int32_t>(),
         .allowed = sequence.allowed},
        request.sampling, output.logprobs);
  };
  pool_.Run(static_cast<int64_t>(entries.size()), sample);
}

}  // namespace wideload::runtime
