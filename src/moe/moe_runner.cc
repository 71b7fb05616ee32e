#include "moe/moe_runner.h"

#include <algorithm>

#include "base/error.h"
#include "moe/moe_pass.h"
#include "trace/trace.h"

namespace wideload::moe {

using Part = exchange::Exchange::Part;
using trace::Span;
using trace::SpanKind;

MoeRunner::MoeRunner(const MoeShape& shape, const MoeLayout& layout, const Parts& parts,
                     SharedPlacements table)
    : shape_(shape),
      layout_(layout),
      exchange_(parts.exchange),
      group_(parts.group),
      store_(parts.slots),
      table_(std::move(table)),
      layers_(parts.layers.value_or(parallel::Shard{0, shape.num_layers()})),
      counts_(static_cast<size_t>(shape.num_experts)),
      computed_rows_(shape.layers.size()),
      layer_times_(shape.layers.size()),
      slots_(static_cast<size_t>(layout.chunk_tokens * shape.top_k())),
      groups_(static_cast<size_t>(layout.slots_per_rank())) {
  for (const eplb::Placement& placement : table_->placements)
    choosers_.push_back(MakeChooser(placement));
  WIDELOAD_CHECK((parts.expert_group != nullptr) == (layout.parts > 1) &&
                     (layout.parts == 1 || layout.mode == MoeMode::kBarrier),
                 "experts in {} parts", layout.parts);
  if (parts.expert_group != nullptr) divided_.emplace(shape, layout, *parts.expert_group);
  exchange_.UsePlacement(table_->stamp());
  if (layout.mode != MoeMode::kMicrobatch) return;
  agreed_.assign(choosers_.size() * static_cast<size_t>(layout.num_ranks) * counts_.size(), 1);
  counted_.assign(agreed_.size(), 0);
}

std::unique_ptr<eplb::SlotChooser> MoeRunner::MakeChooser(const eplb::Placement& placement) const {
  return std::make_unique<eplb::SlotChooser>(placement, layout_.split, layout_.num_ranks);
}

void MoeRunner::UsePlacements(SharedPlacements table) {
  for (size_t i = 0; i < choosers_.size(); ++i)
    if (table->placements[i] != table_->placements[i])
      choosers_[i] = MakeChooser(table->placements[i]);
  table_ = std::move(table);
  exchange_.UsePlacement(table_->stamp());
}

void MoeRunner::BeginIteration(int64_t iteration, int64_t most_tokens) {
  iteration_ = iteration;
  std::fill(routed_counts_.begin(), routed_counts_.end(), 0);
  std::fill(computed_rows_.begin(), computed_rows_.end(), 0);
  num_rounds_ =
      std::max<int64_t>(1, (most_tokens + layout_.chunk_tokens - 1) / layout_.chunk_tokens);
  if (layout_.mode == MoeMode::kMicrobatch) SplitByAgreed();
  std::fill(layer_times_.begin(), layer_times_.end(), LayerTimes{});
}

void MoeRunner::CountRouted(bool is_counting) {
  routed_counts_.assign(is_counting ? computed_rows_.size() * counts_.size() : 0, 0);
}

void MoeRunner::Forward(const compute::Exec& exec, Workspace& workspace, int32_t moe_index,
                        const MoeWeights& weights, const TensorView& x, const TensorView& h) {
  const Span span(SpanKind::kMoe);
  group_.SetWhere(
      {.iteration = iteration_, .layer = shape_.layers[static_cast<size_t>(moe_index)]});
  Pass pass{.exec = exec,
            .workspace = workspace,
            .weights = weights,
            .moe_index = moe_index,
            .h = h,
            .chunk_tokens = layout_.chunk_tokens};
  Route(exec, workspace, weights, x, pass);
  if (layout_.mode == MoeMode::kMicrobatch) return RunMicrobatch(pass);
  layout_.num_buffers == 1 ? RunInTurn(pass) : RunOverlapped(pass);
}

void MoeRunner::RunInTurn(const Pass& pass) {
  bool more = true;
  for (int64_t chunk = 0; more; ++chunk) {
    Publish(pass, chunk);
    more = Send(pass, chunk);
    RunPart(pass, chunk, Part::kAll);
    Combine(pass, chunk);
  }
}

// Whether messages, or the ranks they come from, take a good part of a chunk's computation: two
// computations of half a chunk are slower than one of all of it.
bool MoeRunner::IsMediumSlow() const {
  constexpr int64_t kWorthIt = 8;
  return first_wait_ns_ * kWorthIt > longest_chunk_ns_;
}

void MoeRunner::RunPart(const Pass& pass, int64_t chunk, Part part) {
  Receive(chunk, part);
  Compute(pass, chunk);
  Return(chunk);
}

// While a chunk is computed, the rows of the next one travel, the counts of the one after it, and
// the results of the one before. What arrived meanwhile is looked at a chunk later: with as many
// buffers as kOverlappedChunks nobody waits for it unless it takes longer than a computation.
// At both ends, where there is no other chunk to compute, the rank's own rows take its place:
// before the rows of others are there, and after the last results have left; but for experts that
// ranks divide, which compute the same rows at the same time.
void MoeRunner::RunOverlapped(const Pass& pass) {
  Publish(pass, 0);
  bool more = Send(pass, 0);
  if (more) Publish(pass, 1);
  const bool has_parts = more && group_.size() > 1 && !divided_ && IsMediumSlow();
  int64_t longest_chunk_ns = 0;
  int64_t num_combined = 0;
  for (int64_t chunk = 0;; ++chunk) {
    const bool is_last = !more;
    const bool is_own_first = has_parts && !exchange_.HasRowsOfOthers();
    if (is_own_first) RunPart(pass, chunk, Part::kOwn);
    const bool is_own_last = has_parts && is_last && !is_own_first;
    Receive(chunk, is_own_first || is_own_last ? Part::kOthers : Part::kAll);
    if (!is_last) {
      if (chunk + 1 - num_combined == layout_.num_buffers) Combine(pass, num_combined++);
      more = Send(pass, chunk + 1);
      if (more) Publish(pass, chunk + 2);
    }
    const int64_t begin_ns = trace::NowNs();
    Compute(pass, chunk);
    longest_chunk_ns = std::max(longest_chunk_ns, trace::NowNs() - begin_ns);
    Return(chunk);
    if (is_own_last) RunPart(pass, chunk, Part::kOwn);
    if (!is_last) continue;
    while (num_combined <= chunk) Combine(pass, num_combined++);
    break;
  }
  longest_chunk_ns_ = longest_chunk_ns;
}

void MoeRunner::Receive(int64_t chunk, Part part) {
  const Span span(SpanKind::kReceive, chunk);
  const std::span<const exchange::Exchange::SlotRows> received = exchange_.Receive(part);
  for (size_t s = 0; s < groups_.size(); ++s)
    groups_[s] = {nullptr, received[s].x_rows, received[s].y_rows};
}

void MoeRunner::Route(const compute::Exec& exec, Workspace& workspace, const MoeWeights& weights,
                      const TensorView& x, Pass& pass) {
  const Span span(SpanKind::kRouter);
  const int64_t tokens = x.dim(0);
  const TensorView logits = workspace.TakeTensor(DType::kF32, {tokens, shape_.num_experts});
  pass.ids = workspace.TakeTensor(DType::kI32, {tokens, shape_.top_k()});
  pass.top_weights = workspace.TakeTensor(DType::kF32, {tokens, shape_.top_k()});
  pass.rows = workspace.TakeTensor(exec.precision().activations, {tokens, shape_.hidden});
  compute::MatMul(exec, x, weights.router, logits);
  compute::RouterOptions options = shape_.router;
  options.correction_bias = {
      reinterpret_cast<const float*>(weights.correction_bias.data()),
      static_cast<size_t>(weights.correction_bias.num_bytes() / DTypeBytes(DType::kF32))};
  compute::Route(exec, logits, options, pass.ids, pass.top_weights);
  pass.host_ids = IdsOnHost(exec, pass.ids);
  if (!shape_.weights_scale_inputs) {
    compute::Convert(exec, x, pass.rows);
    return;
  }
  const std::span<float> scales(pass.top_weights.data<float>(), static_cast<size_t>(tokens));
  compute::ConvertScaled(exec, x, scales, pass.rows);
  std::ranges::fill(scales, 1.0F);  // they are in the rows now
}

// Which experts the tokens go to, where slots are chosen. Waits for the device.
TensorView MoeRunner::IdsOnHost(const compute::Exec& exec, const TensorView& ids) {
  if (!IsOnDevice(exec.kernels)) return ids;
  if (host_ids_.num_bytes() < ids.num_bytes())
    host_ids_ = exec.stream->device().AllocateHost(ids.num_bytes());
  exec.stream->Copy(host_ids_.data(), ids.raw(), ids.num_bytes());
  exec.stream->Synchronize();
  return TensorView(ids.dtype(), ids.shape(), host_ids_.data());
}

void MoeRunner::CountChunk(const Pass& pass, int64_t chunk) {
  const Meter meter(layout_.is_metered,
                    layer_times_[static_cast<size_t>(pass.moe_index)].balancing_ns);
  std::fill(counts_.begin(), counts_.end(), 0);
  for (const int32_t expert : pass.Ids(chunk)) ++counts_[static_cast<size_t>(expert)];
  if (routed_counts_.empty()) return;
  int32_t* const routed =
      routed_counts_.data() + static_cast<size_t>(pass.moe_index) * counts_.size();
  for (size_t e = 0; e < counts_.size(); ++e) routed[e] += counts_[e];
}

void MoeRunner::Publish(const Pass& pass, int64_t chunk) {
  const Span span(SpanKind::kCounts, chunk);
  CountChunk(pass, chunk);
  exchange_.PublishCounts(counts_, pass.Begin(chunk + 1) < pass.rows.dim(0));
}

std::span<const int32_t> MoeRunner::ChooseSlots(const Pass& pass, int64_t chunk,
                                                std::span<const int32_t> counts) {
  const auto layer = static_cast<size_t>(pass.moe_index);
  const Span span(SpanKind::kSplit, chunk);
  const Meter meter(layout_.is_metered, layer_times_[layer].balancing_ns);
  eplb::SlotChooser& chooser = *choosers_[layer];
  chooser.Prepare(counts);
  const std::span<const int32_t> ids = pass.Ids(chunk);
  const std::span<int32_t> slots = std::span(slots_).first(ids.size());
  chooser.ChooseSlots(EpRank(group_.rank()), ids, slots);
  return slots;
}

// Chooses the slots of a chunk from the counts of all ranks and sends its rows. Returns whether
// another chunk follows.
bool MoeRunner::Send(const Pass& pass, int64_t chunk) {
  const int64_t begin_ns = trace::NowNs();
  const exchange::Exchange::Counts counts = [&] {
    const Span span(SpanKind::kCounts, chunk);
    return exchange_.WaitCounts();
  }();
  if (chunk == 0) first_wait_ns_ = trace::NowNs() - begin_ns;
  const std::span<const int32_t> slots = ChooseSlots(pass, chunk, counts.all);
  SendRows(pass, chunk, slots);
  return counts.more;
}

void MoeRunner::SendRows(const Pass& pass, int64_t chunk, std::span<const int32_t> slots) {
  const Span span(SpanKind::kDispatch, chunk);
  const TensorView rows = pass.rows.Rows(pass.Begin(chunk), pass.Count(chunk));
  exchange_.Dispatch({.rows = static_cast<const std::byte*>(rows.raw()),
                      .row_stride = rows.row_bytes(),
                      .num_tokens = rows.dim(0),
                      .slots = divided_ ? divided_->SlotsOfParts(slots) : slots});
}

void MoeRunner::Compute(const Pass& pass, int64_t chunk) {
  const std::span<const compute::ExpertWeights* const> slots = store_.Layer(pass.moe_index);
  const Meter meter(layout_.is_metered,
                    layer_times_[static_cast<size_t>(pass.moe_index)].computing_ns);
  for (size_t s = 0; s < groups_.size(); ++s) {
    groups_[s].weights = slots[s];
    computed_rows_[static_cast<size_t>(pass.moe_index)] +=
        static_cast<int64_t>(groups_[s].x_rows.size());
  }
  const Span span(SpanKind::kExperts, chunk);
  const Workspace::Scope scope(pass.workspace);
  if (divided_) return divided_->Compute(pass.exec, groups_, shape_.activation, pass.workspace);
  compute::ExpertMlp(pass.exec, groups_, shape_.activation, pass.workspace);
}

void MoeRunner::Return(int64_t chunk) {
  const Span span(SpanKind::kReturn, chunk);
  exchange_.Return();
}

void MoeRunner::Combine(const Pass& pass, int64_t chunk) {
  const Span span(SpanKind::kCombine, chunk);
  const std::span<const std::byte* const> returned = exchange_.WaitReturns();
  const int64_t begin = pass.Begin(chunk);
  const int64_t count = pass.Count(chunk);
  const TensorView weights = pass.top_weights.Rows(begin, count);
  const TensorView h = pass.h.Rows(begin, count);
  if (divided_) return divided_->Combine(pass.exec, returned, weights, h);
  compute::CombineRows(pass.exec, returned, weights, h);
}

}  // namespace wideload::moe
