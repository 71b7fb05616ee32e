#include "model/context_attention.h"

#include <algorithm>

#include "model/column_cut.h"
#include "model/context_blocks.h"

namespace wideload::model {
namespace {

using compute::KvSequence;
using compute::PagedKv;

// Attention in one layer, by one of the ranks that share a context.
struct Pass {
  const RankContext& rank;
  const Batch& batch;
  const compute::AttentionShape& shape;
  PagedKv cache;                          // of this rank, with its part
  std::span<const KvSequence> sequences;  // of all ranks' rows

  Workspace& workspace() const { return *rank.workspace; }
};

// Some columns of all ranks' rows, [rows, q | k | v] F32.
struct GatheredRows {
  TensorView all;
  int64_t q_width = 0;
  int64_t k_width = 0;

  TensorView q() const { return all.Columns(0, q_width); }
  TensorView k() const { return all.Columns(q_width, k_width); }
  TensorView v() const {
    const int64_t before = q_width + k_width;
    return before == all.dim(1) ? TensorView() : all.Columns(before, all.dim(1) - before);
  }
};

// `rows` without q: without those of others, too.
GatheredRows Gather(const Pass& pass, const ProjectedRows& rows) {
  const auto width = [](const TensorView& view) { return view.empty() ? 0 : view.dim(1); };
  const GatheredRows gathered{.all = pass.workspace().TakeTensor(
                                  DType::kF32, {pass.batch.num_group_rows(),
                                                width(rows.q) + width(rows.k) + width(rows.v)}),
                              .q_width = width(rows.q),
                              .k_width = width(rows.k)};
  const int64_t first = pass.batch.first_row(pass.rank.context->rank());
  const auto copy = [&](const TensorView& from, const TensorView& to) {
    Convert(pass.rank.exec, from, to.Rows(first, from.dim(0)));
  };
  if (rows.k.dim(0) > 0) {
    if (!rows.q.empty()) copy(rows.q, gathered.q());
    copy(rows.k, gathered.k());
    if (!rows.v.empty()) copy(rows.v, gathered.v());
  }
  GatherRows(pass.rank, *pass.rank.context, gathered.all, pass.batch.row_ends);
  return gathered;
}

// What each rank's part of the blocks gives for this rank's rows: [ranks, own rows, width] F32.
// `own` [all rows, width] is what this rank's part gives for everybody's.
TensorView Exchange(const Pass& pass, const TensorView& own) {
  comm::Communicator& group = *pass.rank.context;
  const std::span<int64_t> ends = pass.workspace().Take<int64_t>(group.size());
  for (size_t r = 0; r < ends.size(); ++r) ends[r] = pass.batch.row_ends[r] * own.row_bytes();
  const TensorView parts = pass.workspace().TakeTensor(
      DType::kF32, {group.size(), std::ssize(pass.batch.ids), own.dim(1)});
  const auto bytes_of = [](const TensorView& view) {
    return std::span(static_cast<std::byte*>(view.raw_mutable()),
                     static_cast<size_t>(view.num_bytes()));
  };
  group.AllToAll(bytes_of(own), ends, bytes_of(parts));
  return parts;
}

// Queries travel: every rank's to every part, and what the parts give back to where they came from.
void AskEveryPart(const Pass& pass, const ProjectedRows& rows, const TensorView& y) {
  const GatheredRows gathered = Gather(pass, rows);
  StoreKv(pass.rank.exec, gathered.k(), gathered.v(), pass.sequences, pass.cache);
  const TensorView partial =
      pass.workspace().TakeTensor(DType::kF32, {gathered.all.dim(0), PartialWidth(pass.shape)});
  PartialAttention(pass.rank.exec, pass.shape, gathered.q(), pass.sequences, pass.cache, partial);
  const TensorView parts = Exchange(pass, partial);
  if (y.dim(0) > 0) MergeAttention(pass.rank.exec, pass.shape, parts, y);
}

// Keys and values travel: every part to every rank, which looks at all of them for its own rows.
void TakeEveryPart(const Pass& pass, std::span<const SeenBlocks> seen, const ProjectedRows& rows,
                   const TensorView& y) {
  comm::Communicator& group = *pass.rank.context;
  const GatheredRows gathered = Gather(pass, {.q = {}, .k = rows.k, .v = rows.v});
  StoreKv(pass.rank.exec, gathered.k(), gathered.v(), pass.sequences, pass.cache);
  const GatheredBlocks blocks = GatherBlocks(pass.rank, pass.cache, seen);
  const int64_t first = pass.batch.first_row(group.rank());
  const std::span<KvSequence> own = pass.workspace().Take<KvSequence>(std::ssize(pass.sequences));
  size_t count = 0;
  for (const KvSequence& part : pass.sequences) {
    if (part.first_row < first || part.first_row >= first + y.dim(0)) continue;
    const auto found = std::ranges::find_if(
        seen, [&](const SeenBlocks& s) { return s.blocks.data() == part.blocks.data(); });
    own[count] = part;
    own[count].first_row -= first;
    own[count++].blocks = blocks.tables[static_cast<size_t>(found - seen.begin())];
  }
  if (count > 0)
    PagedAttention(pass.rank.exec, pass.shape, rows.q, own.first(count), blocks.cache, y);
  group.Barrier();  // others may be reading what this rank has gathered
}

// Whether that is less to send: the same on every rank.
bool AreBlocksFewerBytes(const Pass& pass, std::span<const SeenBlocks> seen) {
  const compute::AttentionShape& shape = pass.shape;
  int64_t num_blocks = 0;
  for (const SeenBlocks& s : seen) num_blocks += s.end - s.first;
  const auto block_bytes = [](const TensorView& blocks) {
    return blocks.empty() ? 0 : blocks.num_bytes() / blocks.dim(0);
  };
  const int64_t asked = shape.q_heads * shape.key_dim + PartialWidth(shape);
  return num_blocks * (block_bytes(pass.cache.keys) + block_bytes(pass.cache.values)) <
         pass.batch.num_group_rows() * asked * DTypeBytes(DType::kF32);
}

}  // namespace

void Attend(const RankContext& rank, const Batch& batch, int64_t layer,
            const compute::AttentionShape& shape, const ProjectedRows& rows, const TensorView& y) {
  PagedKv cache{.keys = rank.cache->Keys(layer), .values = rank.cache->Values(layer)};
  const auto sequences = batch.SequencesOf(rank.cache->block_class(layer));
  if (rank.context == nullptr) {
    StoreKv(rank.exec, rows.k, rows.v, sequences, cache);
    PagedAttention(rank.exec, shape, rows.q, sequences, cache, y);
    return;
  }
  if (batch.num_group_rows() == 0) return;
  cache.part = rank.context->rank();
  cache.num_parts = rank.context->size();
  const Pass pass{
      .rank = rank, .batch = batch, .shape = shape, .cache = cache, .sequences = sequences};
  const auto seen = FindSeen(shape, sequences, cache.keys.dim(2), *rank.workspace);
  if (AreBlocksFewerBytes(pass, seen))
    TakeEveryPart(pass, seen, rows, y);
  else
    AskEveryPart(pass, rows, y);
}

}  // namespace wideload::model
