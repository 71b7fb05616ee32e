#include "moe/slot_store.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "trace/trace.h"

namespace wideload::moe {
namespace {

int64_t LargestExpert(const HostExperts& experts) {
  size_t largest = 0;
  for (const auto& layer : experts)
    for (const compute::ExpertWeights& expert : layer)
      largest = std::max(largest, expert.bytes().size());
  return static_cast<int64_t>(largest);
}

constexpr int32_t kNone = -1;

}  // namespace

SlotStorage ParseSlotStorage(std::string_view name) {
  if (name == "view") return SlotStorage::kView;
  if (name == "copy") return SlotStorage::kCopy;
  Throw(ErrorKind::kInvalid, "slot storage is \"{}\"; allowed: view, copy", name);
}

int64_t SlotStoreBytes(const SlotOptions& options, int64_t num_slots, int64_t expert_bytes) {
  if (options.storage == SlotStorage::kView) return 0;
  return (num_slots + options.num_spare) * SlotCopier::BlockBytes(expert_bytes);
}

SlotStore::SlotStore(const HostExperts& experts, const PlacementTable& start,
                     const SlotOptions& options)
    : experts_(experts),
      options_(options),
      first_layer_(options.layers ? static_cast<size_t>(options.layers->begin) : 0),
      num_layers_(options.layers ? static_cast<size_t>(options.layers->size())
                                 : start.placements.size()),
      slots_per_rank_(start.placements.empty()
                          ? 0
                          : static_cast<size_t>(start.placements.front().slots_per_rank())),
      weights_(num_layers_ * slots_per_rank_),
      held_(weights_.size()),
      next_held_(weights_.size()) {
  NoteHeld(start, held_);
  if (options.storage == SlotStorage::kCopy) MakeCopies();
  PointAtSlots();
}

void SlotStore::MakeCopies() {
  const size_t num_blocks = weights_.size() + static_cast<size_t>(options_.num_spare);
  copier_ =
      std::make_unique<SlotCopier>(CopierOptions{.rank = options_.rank,
                                                 .num_blocks = static_cast<int64_t>(num_blocks),
                                                 .block_bytes = LargestExpert(experts_),
                                                 .num_layers = num_layers_,
                                                 .bytes_per_second = options_.bytes_per_second,
                                                 .progress = options_.progress,
                                                 .trace = options_.trace});
  blocks_.resize(weights_.size());
  next_blocks_.resize(weights_.size());
  is_used_.resize(num_blocks);
  for (size_t i = 0; i < held_.size(); ++i) {
    blocks_[i] = static_cast<int32_t>(i);
    copier_->CopyNow(blocks_[i], HostExpert(i, held_[i]));
  }
  for (size_t b = weights_.size(); b < num_blocks; ++b)
    free_blocks_.push_back(static_cast<int32_t>(b));
}

SlotStore::~SlotStore() = default;

int64_t SlotStore::num_bytes() const { return copier_ ? copier_->num_bytes() : 0; }

void SlotStore::NoteHeld(const PlacementTable& table, std::vector<int32_t>& held) const {
  WIDELOAD_CHECK(
      table.placements.size() == experts_.size() && first_layer_ + num_layers_ <= experts_.size(),
      "{} placements for {} MoE layers", table.placements.size(), experts_.size());
  const size_t first = static_cast<size_t>(options_.ep_rank) * slots_per_rank_;
  for (size_t layer = 0; layer < num_layers_; ++layer)
    for (size_t s = 0; s < slots_per_rank_; ++s)
      held[layer * slots_per_rank_ + s] =
          table.placements[first_layer_ + layer].slot_expert[first + s].value;
}

const compute::ExpertWeights& SlotStore::HostExpert(size_t index, int32_t expert) const {
  const size_t layer = first_layer_ + index / slots_per_rank_;
  const compute::ExpertWeights& weights = experts_[layer][static_cast<size_t>(expert)];
  WIDELOAD_CHECK(!weights.bytes().empty(),
                 "expert {} of MoE layer {} has a slot of rank {}, whose host does not hold it",
                 expert, layer, options_.rank);
  return weights;
}

// Slots of the layer that hold next what some slot of it holds now keep that one's block; the
// others have none.
void SlotStore::KeepBlocks(size_t layer) {
  const size_t begin = layer * slots_per_rank_;
  const size_t end = begin + slots_per_rank_;
  const auto keep = [&](size_t slot, size_t from) {
    if (next_blocks_[slot] != kNone || held_[from] != next_held_[slot] ||
        is_used_[static_cast<size_t>(blocks_[from])] != 0)
      return;
    next_blocks_[slot] = blocks_[from];
    is_used_[static_cast<size_t>(blocks_[from])] = 1;
  };
  for (size_t slot = begin; slot < end; ++slot) {
    next_blocks_[slot] = kNone;
    keep(slot, slot);
  }
  for (size_t slot = begin; slot < end; ++slot)
    for (size_t from = begin; from < end; ++from) keep(slot, from);
}

void SlotStore::PlanMoves(const PlacementTable& next) {
  announced_ = next.generation;
  NoteHeld(next, next_held_);
  for (size_t i = 0; i < next_held_.size(); ++i) {
    const auto begin = held_.begin() + static_cast<int64_t>(i / slots_per_rank_ * slots_per_rank_);
    const auto end = begin + static_cast<int64_t>(slots_per_rank_);
    if (std::find(begin, end, next_held_[i]) == end) ++figures_.num_fetched;
  }
  if (!copier_) return;
  std::ranges::fill(is_used_, 0);
  for (size_t layer = 0; layer < num_layers_; ++layer) KeepBlocks(layer);
  BeginCopies();
}

// Fills slots that have no block yet, layer by layer, while there are free blocks.
void SlotStore::BeginCopies() {
  for (size_t i = 0; i < next_blocks_.size() && !free_blocks_.empty(); ++i) {
    if (next_blocks_[i] != kNone) continue;
    const compute::ExpertWeights& expert = HostExpert(i, next_held_[i]);
    next_blocks_[i] = free_blocks_.back();
    free_blocks_.pop_back();
    is_used_[static_cast<size_t>(next_blocks_[i])] = 1;
    copier_->Begin(next_blocks_[i], expert, 1 - turn_, i / slots_per_rank_);
    figures_.copied_bytes += static_cast<int64_t>(expert.bytes().size());
  }
}

void SlotStore::Announce(const PlacementTable& next) {
  WIDELOAD_CHECK(announced_ == kNone, "generation {} announced before the use of {}",
                 next.generation, announced_);
  const trace::Span span(trace::SpanKind::kAnnounce, next.generation);
  PlanMoves(next);
}

void SlotStore::Use(const PlacementTable& next) {
  const trace::Span span(trace::SpanKind::kPublish, next.generation);
  if (announced_ == kNone) PlanMoves(next);
  WIDELOAD_CHECK(announced_ == next.generation, "use of generation {} after {} was announced",
                 next.generation, announced_);
  announced_ = kNone;
  if (copier_) {
    copier_->WaitAll(turn_);  // of a table that was used in no iteration
    for (const int32_t block : blocks_)
      if (is_used_[static_cast<size_t>(block)] == 0) free_blocks_.push_back(block);
    BeginCopies();
    turn_ = 1 - turn_;
    std::swap(blocks_, next_blocks_);
  }
  std::swap(held_, next_held_);
  PointAtSlots();
}

void SlotStore::PointAtSlots() {
  if (!copier_) {
    for (size_t i = 0; i < held_.size(); ++i) weights_[i] = &HostExpert(i, held_[i]);
    return;
  }
  for (size_t i = 0; i < blocks_.size(); ++i) weights_[i] = &copier_->weights(blocks_[i]);
}

std::span<const compute::ExpertWeights* const> SlotStore::Layer(int32_t moe_index) {
  const size_t layer = static_cast<size_t>(moe_index) - first_layer_;
  if (copier_ && !copier_->IsDone(turn_, layer)) {
    const trace::Span span(trace::SpanKind::kWaitCopies, moe_index);
    const auto begin = std::chrono::steady_clock::now();
    copier_->WaitLayer(turn_, layer);
    figures_.waited_ns +=
        std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin).count();
  }
  return std::span(weights_).subspan(layer * slots_per_rank_, slots_per_rank_);
}

void SlotStore::Verify(const ExpertSums& sums, ThreadPool& pool) {
  const trace::Span span(trace::SpanKind::kVerify);
  if (copier_) copier_->WaitAll(turn_);
  pool.Run(static_cast<int64_t>(weights_.size()), [&](int64_t i, int) {
    const auto at = static_cast<size_t>(i);
    const size_t layer = first_layer_ + at / slots_per_rank_;
    const size_t num_experts = experts_[layer].size();
    const auto expert = static_cast<size_t>(held_[at]);
    if (SumBytes(weights_[at]->bytes()) == sums[layer * num_experts + expert]) return;
    Throw(ErrorKind::kCorrupt,
          "rank {}: slot {} of MoE layer {} does not hold the bytes of its expert {}",
          options_.rank,
          static_cast<size_t>(options_.ep_rank) * slots_per_rank_ + at % slots_per_rank_, layer,
          expert);
  });
}

}  // namespace wideload::moe
