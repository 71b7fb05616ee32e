// How the attention of a step is cut into blocks, on the host.
#pragma once

#include <algorithm>
#include <vector>

#include "compute/cuda/attention_kernels.h"

namespace wideload::compute::cuda {

// The units of a step.
struct AttentionPlan {
  std::vector<AttentionUnit> whole;  // of many rows: all parts by one block
  std::vector<AttentionUnit> parts;  // of few rows: one part each
  std::vector<AttentionUnit> folds;  // of those that have several
  int64_t num_slots = 0;
  int64_t warps = 1;       // of a block of `whole`
  bool has_folds = false;  // in blocks of `whole`
};

// Up to which parts are computed by four warps each.
inline constexpr int kPartsOfMultiprocessor = 2;
// Sequences of at most this many rows of a KV head are cut into parts.
inline constexpr int64_t kMostRowsInParts = 2 * kFragmentRows;

// The parts that rows [first, end) of a sequence see: from .. to.
struct PartRange {
  int64_t from;
  int64_t to;
};
inline PartRange PartsOf(const PagedAttentionArgs& args, const Sequence& s, int64_t first,
                         int64_t end) {
  const int64_t visible = FirstVisibleOf(args, s.start_position + first / args.heads);
  const int64_t last = s.start_position + (end - 1) / args.heads;
  return {visible / kPartPositions, last / kPartPositions};
}

// Units of a sequence of few rows: its parts, and what folds them.
inline void AddParts(const PagedAttentionArgs& args, const Sequence& s, int32_t index,
                     AttentionPlan& plan) {
  const int64_t num_rows = s.num_tokens * args.heads;
  for (int64_t first = 0; first < num_rows; first += kFragmentRows) {
    const PartRange range = PartsOf(args, s, first, std::min(num_rows, first + kFragmentRows));
    const bool is_alone = range.from == range.to;
    AttentionUnit unit = {.sequence = index, .first_row = static_cast<int32_t>(first)};
    if (!is_alone) {
      unit.part = static_cast<int32_t>(range.to - range.from + 1);
      unit.slot = static_cast<int32_t>(plan.num_slots);
      plan.folds.push_back(unit);
    }
    for (int64_t part = range.from; part <= range.to; ++part) {
      unit.part = static_cast<int32_t>(part);
      unit.slot = is_alone ? kOnlyPart : static_cast<int32_t>(plan.num_slots++);
      plan.parts.push_back(unit);
    }
  }
}

// Cuts a step. max_warps: that a block of `whole` may have.
inline AttentionPlan PlanAttention(const PagedAttentionArgs& args, const Batch& batch,
                                   int64_t max_warps) {
  AttentionPlan plan;
  const auto num_rows = [&](const Sequence& s) { return s.num_tokens * args.heads; };
  int64_t most_rows = 0;
  for (const Sequence& s : batch.sequences) most_rows = std::max(most_rows, num_rows(s));
  plan.warps = std::clamp<int64_t>((most_rows + kFragmentRows - 1) / kFragmentRows, 1, max_warps);
  const int64_t rows_of_block = plan.warps * kFragmentRows;
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const Sequence& s = batch.sequences[i];
    const auto index = static_cast<int32_t>(i);
    if (s.num_tokens == 0) continue;
    if (num_rows(s) <= kMostRowsInParts) {
      AddParts(args, s, index, plan);
      continue;
    }
    const PartRange range = PartsOf(args, s, 0, num_rows(s));
    plan.has_folds = plan.has_folds || range.from != range.to;
    // The last rows first: they see the most.
    for (int64_t first = (num_rows(s) - 1) / rows_of_block * rows_of_block; first >= 0;
         first -= rows_of_block) {
      plan.whole.push_back({.sequence = index,
                            .first_row = static_cast<int32_t>(first),
                            .part = kAllParts,
                            .slot = kOnlyPart});
    }
  }
  return plan;
}

// Whether rows can be copied by 16 bytes.
inline bool CopiesBy16(const KvCache& cache) {
  const auto is_aligned = [](const std::byte* base, int64_t block_bytes, int64_t width) {
    return reinterpret_cast<uintptr_t>(base) % 16 == 0 && block_bytes % 16 == 0 && width % 8 == 0;
  };
  return is_aligned(cache.keys, cache.key_block_bytes, cache.key_dim) &&
         is_aligned(cache.values, cache.value_block_bytes, cache.value_dim);
}

// A part each: by four warps, where multiprocessors have no more than about one, else by one, which
// has the next tile in flight while it computes. Both give the same bits.
template <int kDims>
void LaunchParts(device::Stream& stream, int64_t num_parts, const AttentionArgsOnDevice& args) {
  using Kernel = AttentionKernel<kDims>;
  const int64_t kv_heads = args.attention.cache.kv_heads;
  if constexpr (Kernel::Tiles::kKeepsQueries) {
    using OfFour = PartKernel<kDims>;
    const device::Properties& properties = stream.device().properties();
    if (num_parts * kv_heads <= int64_t{kPartsOfMultiprocessor} * properties.num_multiprocessors &&
        OfFour::kSharedBytes <= properties.shared_bytes_per_block) {
      return device::Launch<OfFour>(stream,
                                    {.blocks = num_parts,
                                     .blocks_y = kv_heads,
                                     .threads = OfFour::kThreads,
                                     .shared_bytes = OfFour::kSharedBytes},
                                    args);
    }
  }
  device::Launch<Kernel>(stream,
                         {.blocks = num_parts,
                          .blocks_y = kv_heads,
                          .threads = device::kWarp,
                          .shared_bytes = Kernel::kWarpsAt + Kernel::Tiles::kQueryBytes},
                         args);
}

// Attention over heads of at most kDims elements.
template <int kDims>
void AttendUpTo(device::Stream& stream, const PagedAttentionArgs& args, const Batch& batch) {
  using Kernel = AttentionKernel<kDims>;
  const int64_t room = stream.device().properties().shared_bytes_per_block - Kernel::kWarpsAt;
  constexpr int64_t kWarpBytes = Kernel::Tiles::kQueryBytes + Kernel::kRunningBytes;
  const AttentionPlan plan = PlanAttention(
      args, batch, std::clamp<int64_t>(room / kWarpBytes, 1, Kernel::kThreads / device::kWarp));
  const int64_t kv_heads = args.cache.kv_heads;
  // Uploaded for each launch, since a stream that waits after a kernel forgets what it was given.
  const auto with = [&](const std::vector<AttentionUnit>& units, float* parts) {
    return AttentionArgsOnDevice{.attention = args,
                                 .sinks = args.sinks.empty() ? nullptr : stream.Upload(args.sinks),
                                 .sequences = stream.Upload(batch.sequences),
                                 .blocks = stream.Upload(batch.blocks),
                                 .units = stream.Upload(std::span<const AttentionUnit>(units)),
                                 .parts = parts,
                                 .copies_by_16 = CopiesBy16(args.cache)};
  };
  if (!plan.parts.empty()) {
    auto* const parts = reinterpret_cast<float*>(
        stream.Scratch(plan.num_slots * kv_heads * kPartFloats<kDims> * 4));
    LaunchParts<kDims>(stream, static_cast<int64_t>(plan.parts.size()), with(plan.parts, parts));
    using Fold = FoldPartsKernel<kDims>;
    const auto num_folds = static_cast<int64_t>(plan.folds.size());
    if (num_folds > 0) {
      device::Launch<Fold>(stream,
                           {.blocks = num_folds * Fold::kBlocksOfUnit,
                            .blocks_y = kv_heads,
                            .threads = Fold::kThreads},
                           with(plan.folds, parts));
    }
  }
  if (plan.whole.empty()) return;
  const int64_t of_warp = plan.has_folds ? kWarpBytes : Kernel::Tiles::kQueryBytes;
  device::Launch<Kernel>(stream,
                         {.blocks = static_cast<int64_t>(plan.whole.size()),
                          .blocks_y = kv_heads,
                          .threads = static_cast<int>(plan.warps) * device::kWarp,
                          .shared_bytes = Kernel::kWarpsAt + plan.warps * of_warp},
                         with(plan.whole, nullptr));
}

// Kernels::attention.
inline void PagedAttention(device::Stream& stream, const PagedAttentionArgs& args,
                           const Batch& batch) {
  const int64_t dims = std::max(args.cache.key_dim, args.cache.value_dim);
  if (dims <= 64) return AttendUpTo<64>(stream, args, batch);
  if (dims <= 128) return AttendUpTo<128>(stream, args, batch);
  AttendUpTo<kMaxAttentionDim>(stream, args, batch);
}

// Kernels::store_kv.
inline void StoreKv(device::Stream& stream, const StoreKvArgs& args, const Batch& batch) {
  std::vector<AttentionUnit> units;
  for (size_t i = 0; i < batch.sequences.size(); ++i)
    for (int64_t first = 0; first < batch.sequences[i].num_tokens; first += StoreKvKernel::kTokens)
      units.push_back(
          {.sequence = static_cast<int32_t>(i), .first_row = static_cast<int32_t>(first)});
  if (units.empty()) return;
  device::Launch<StoreKvKernel>(
      stream, {.blocks = static_cast<int64_t>(units.size()), .threads = StoreKvKernel::kThreads},
      {.store = args,
       .sequences = stream.Upload(batch.sequences),
       .blocks = stream.Upload(batch.blocks),
       .units = stream.Upload(std::span<const AttentionUnit>(units))});
}

}  // namespace wideload::compute::cuda
