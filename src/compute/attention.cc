#include <algorithm>
#include <vector>

#include "compute/dispatch.h"
#include "compute/ops.h"

namespace wideload::compute {
namespace {

// Rows of one sequence, and query heads of one KV head, that one task takes.
constexpr int64_t kRowsPerTask = 16;
constexpr int64_t kHeadsPerTask = 32;

// Keys or values of a layer.
struct CachePart {
  int64_t width = 0;
  int64_t element_bytes = 0;
  int64_t token_bytes() const { return width * element_bytes; }
};

struct CacheShape {
  int64_t num_blocks = 0;
  int64_t kv_heads = 0;
  int64_t block_tokens = 0;
  CachePart keys;
  CachePart values;  // width 0: there are none
  int64_t part = 0;  // PagedKv's
  int64_t num_parts = 1;

  // Of the first `num_blocks` blocks of a sequence, those of the part.
  int64_t OwnOf(int64_t blocks) const { return (blocks + num_parts - 1 - part) / num_parts; }
};

void CheckPart(const char* op, const Exec& exec, const TensorView& part, const Shape& keys) {
  const Shape& shape = part.shape();
  const DType dtype = exec.precision().kv_cache;
  WIDELOAD_CHECK(shape.rank() == 4 && shape[0] == keys[0] && shape[1] == keys[1] &&
                     shape[2] == keys[2] && part.dtype() == dtype,
                 "{}: keys are {}, cached here are {} {}; [num_blocks, kv_heads, block_tokens, D] "
                 "{} is expected",
                 op, keys.ToString(), DTypeName(part.dtype()), shape.ToString(), DTypeName(dtype));
  WIDELOAD_CHECK(
      shape[2] >= 1 && shape[2] <= kMaxBlockTokens && shape[3] >= 1 && shape[3] <= kMaxHeadDim,
      "{}: blocks of {} tokens ({} at most), heads of {} ({} at most)", op, shape[2],
      kMaxBlockTokens, shape[3], kMaxHeadDim);
}

CacheShape CheckCache(const char* op, const Exec& exec, const PagedKv& cache) {
  const Shape& keys = cache.keys.shape();
  const int64_t element_bytes = DTypeBytes(exec.precision().kv_cache);
  CheckPart(op, exec, cache.keys, keys);
  CacheShape shape{.num_blocks = keys[0],
                   .kv_heads = keys[1],
                   .block_tokens = keys[2],
                   .keys = {.width = keys[3], .element_bytes = element_bytes},
                   .values = {.width = 0, .element_bytes = element_bytes},
                   .part = cache.part,
                   .num_parts = cache.num_parts};
  WIDELOAD_CHECK(cache.num_parts >= 1 && kStripes % cache.num_parts == 0 && cache.part >= 0 &&
                     cache.part < cache.num_parts,
                 "{}: part {} of {}; the number must divide {}", op, cache.part, cache.num_parts,
                 kStripes);
  if (cache.values.empty()) return shape;
  CheckPart(op, exec, cache.values, keys);
  shape.values.width = cache.values.dim(3);
  return shape;
}

// Blocks of positions [first, end of the sequence's tokens) must be there.
void CheckSequence(const char* op, const KvSequence& s, int64_t rows, const CacheShape& shape,
                   int64_t first) {
  WIDELOAD_CHECK(s.first_row >= 0 && s.num_tokens >= 0 && s.first_row + s.num_tokens <= rows &&
                     s.start_position >= 0,
                 "{}: rows {} and {} more of {}, from position {}", op, s.first_row, s.num_tokens,
                 rows, s.start_position);
  if (s.num_tokens == 0) return;
  const int64_t end = s.start_position + s.num_tokens;
  const int64_t needed = shape.OwnOf((end + shape.block_tokens - 1) / shape.block_tokens);
  WIDELOAD_CHECK(static_cast<int64_t>(s.blocks.size()) >= needed,
                 "{}: {} blocks of {} tokens, of {} parts, for {} positions", op, s.blocks.size(),
                 shape.block_tokens, shape.num_parts, end);
  for (int64_t i = shape.OwnOf(first / shape.block_tokens); i < needed; ++i) {
    const int32_t block = s.blocks[static_cast<size_t>(i)];
    WIDELOAD_CHECK(block >= 0 && block < shape.num_blocks, "{}: block {} of {}", op, block,
                   shape.num_blocks);
  }
}

int64_t TotalTokens(std::span<const KvSequence> sequences) {
  int64_t total = 0;
  for (const KvSequence& s : sequences) total += s.num_tokens;
  return total;
}

// Row blocks of the longest sequence.
int64_t MostRowBlocks(std::span<const KvSequence> sequences) {
  int64_t most = 0;
  for (const KvSequence& s : sequences) most = std::max(most, s.num_tokens);
  return (most + kRowsPerTask - 1) / kRowsPerTask;
}

// Memory of one KV head in block 0.
std::byte* HeadOf(const TensorView& cache, const CacheShape& shape, const CachePart& part,
                  int64_t kv_head) {
  return static_cast<std::byte*>(cache.raw_mutable()) +
         kv_head * shape.block_tokens * part.token_bytes();
}

void CheckAttention(const AttentionShape& shape, const CacheShape& kv) {
  const bool values_fit = kv.values.width > 0
                              ? shape.value_dim == kv.values.width
                              : shape.value_dim >= 1 && shape.value_dim <= shape.key_dim;
  WIDELOAD_CHECK(shape.key_dim == kv.keys.width && values_fit,
                 "PagedAttention: keys of {}, values of {} over a cache of {} and {}",
                 shape.key_dim, shape.value_dim, kv.keys.width, kv.values.width);
  WIDELOAD_CHECK(
      shape.kv_heads == kv.kv_heads && shape.q_heads > 0 && shape.q_heads % shape.kv_heads == 0,
      "PagedAttention: {} query heads over {} KV heads, cached are {}", shape.q_heads,
      shape.kv_heads, kv.kv_heads);
  WIDELOAD_CHECK(shape.sinks.empty() || static_cast<int64_t>(shape.sinks.size()) == shape.q_heads,
                 "PagedAttention: {} sinks for {} heads", shape.sinks.size(), shape.q_heads);
  WIDELOAD_CHECK(shape.window >= 0 && shape.chunk >= 0, "PagedAttention: window {}, chunk {}",
                 shape.window, shape.chunk);
}

// What one task computes: some heads of one KV head for some rows of a sequence.
struct AttentionTask {
  const CacheShape& kv;
  const KvSequence* sequence = nullptr;
  int64_t first = 0;  // row of the sequence
  int64_t kv_head = 0;
  int64_t q_head = 0;
  int64_t heads = 0;
  bool is_partial = false;
};

void Attend(const Exec& exec, const AttentionShape& shape, const TensorView& q,
            const PagedKv& cache, const TensorView& y, const AttentionTask& task) {
  const CacheShape& kv = task.kv;
  const KvSequence& s = *task.sequence;
  const int64_t row = s.first_row + task.first;
  const int64_t head_width = task.is_partial ? shape.value_dim + 2 : shape.value_dim;
  const int64_t y_bytes = row * y.row_bytes() + task.q_head * head_width * DTypeBytes(y.dtype());
  KernelsOf(exec.kernels)
      .attention({.q = {.base = reinterpret_cast<const std::byte*>(q.row<float>(row) +
                                                                   task.q_head * shape.key_dim),
                        .stride_bytes = q.row_bytes()},
                  .y = {.base = static_cast<std::byte*>(y.raw_mutable()) + y_bytes,
                        .stride_bytes = y.row_bytes()},
                  .num_rows = std::min(kRowsPerTask, s.num_tokens - task.first),
                  .first_position = s.start_position + task.first,
                  .heads = task.heads,
                  .key_dim = shape.key_dim,
                  .value_dim = shape.value_dim,
                  .scale = shape.scale,
                  .window = shape.window,
                  .chunk = shape.chunk,
                  .sinks = shape.sinks.empty() ? nullptr : shape.sinks.data() + task.q_head,
                  .keys = HeadOf(cache.keys, kv, kv.keys, task.kv_head),
                  .values = cache.values.empty()
                                ? nullptr
                                : HeadOf(cache.values, kv, kv.values, task.kv_head),
                  .key_block_bytes = cache.keys.row_bytes(),
                  .value_block_bytes = cache.values.row_bytes(),
                  .block_tokens = kv.block_tokens,
                  .blocks = s.blocks.data(),
                  .part = kv.part,
                  .num_parts = kv.num_parts,
                  .is_partial = task.is_partial});
}

// The tables of a step as kernels of a device take them.
struct DeviceBatch {
  explicit DeviceBatch(std::span<const KvSequence> from) {
    for (const KvSequence& s : from) {
      WIDELOAD_CHECK(s.start_position + s.num_tokens <= INT32_MAX / 2,
                     "a sequence of {} positions on a device", s.start_position + s.num_tokens);
      sequences.push_back({.first_row = s.first_row,
                           .num_tokens = s.num_tokens,
                           .start_position = s.start_position,
                           .first_block = static_cast<int64_t>(blocks.size())});
      blocks.insert(blocks.end(), s.blocks.begin(), s.blocks.end());
    }
  }
  cuda::Batch batch() const { return {.sequences = sequences, .blocks = blocks}; }

  std::vector<cuda::Sequence> sequences;
  std::vector<int32_t> blocks;
};

cuda::KvCache OnDeviceCache(const char* op, const PagedKv& cache, const CacheShape& shape) {
  WIDELOAD_CHECK(shape.num_parts == 1,
                 "{}: a part of {} of the blocks; on a device a cache has all", op,
                 shape.num_parts);
  WIDELOAD_CHECK(shape.values.width > 0,
                 "{}: values that are in their keys; on a device they are apart", op);
  WIDELOAD_CHECK(shape.num_blocks <= cuda::kMaxCacheBlocks, "{}: {} blocks; at most {} on a device",
                 op, shape.num_blocks, cuda::kMaxCacheBlocks);
  return {.keys = static_cast<std::byte*>(cache.keys.raw_mutable()),
          .values = static_cast<std::byte*>(cache.values.raw_mutable()),
          .key_block_bytes = cache.keys.row_bytes(),
          .value_block_bytes = cache.values.row_bytes(),
          .kv_heads = shape.kv_heads,
          .block_tokens = shape.block_tokens,
          .key_dim = shape.keys.width,
          .value_dim = shape.values.width};
}

cuda::PagedAttentionArgs OnDeviceArgs(const AttentionShape& shape, const TensorView& q,
                                      const PagedKv& cache, const CacheShape& kv,
                                      const TensorView& y) {
  WIDELOAD_CHECK(std::max(shape.key_dim, shape.value_dim) <= cuda::kMaxAttentionDim,
                 "PagedAttention: heads of {} and {}; at most {} on a device", shape.key_dim,
                 shape.value_dim, cuda::kMaxAttentionDim);
  return {.q = ReadRows(q),
          .y = WriteRows(y),
          .cache = OnDeviceCache("PagedAttention", cache, kv),
          .heads = shape.q_heads / shape.kv_heads,
          .scale = shape.scale,
          .window = shape.window,
          .chunk = shape.chunk,
          .sinks = shape.sinks};
}

}  // namespace

int64_t AttentionShape::FirstVisible(int64_t position) const {
  const int64_t in_window = window > 0 ? std::max<int64_t>(0, position + 1 - window) : 0;
  const int64_t in_chunk = chunk > 0 ? position / chunk * chunk : 0;
  return std::max(in_window, in_chunk);
}

void StoreKv(const Exec& exec, const TensorView& k, const TensorView& v,
             std::span<const KvSequence> sequences, const PagedKv& cache) {
  const CacheShape shape = CheckCache("StoreKv", exec, cache);
  CheckMatrix("StoreKv", "k", k, DType::kF32, {k.dim(0), shape.kv_heads * shape.keys.width});
  if (shape.values.width > 0) {
    CheckMatrix("StoreKv", "v", v, DType::kF32, {k.dim(0), shape.kv_heads * shape.values.width});
  } else {
    WIDELOAD_CHECK(v.empty(), "StoreKv: values for a cache of keys");
  }
  for (const KvSequence& s : sequences) {
    CheckSequence("StoreKv", s, k.dim(0), shape, s.start_position);
  }
  if (IsOnDevice(exec.kernels)) {
    return OnDevice(exec, "StoreKv", &cuda::Kernels::store_kv)(
        *exec.stream,
        {.k = ReadRows(k), .v = ReadRows(v), .cache = OnDeviceCache("StoreKv", cache, shape)},
        DeviceBatch(sequences).batch());
  }
  const auto convert = KernelsOf(exec.kernels).convert;
  // A row's heads lie kv_heads runs of width apart here, and whole blocks' heads apart there.
  const auto store = [&](const float* row, const TensorView& to, const CachePart& part,
                         int64_t block, int64_t offset) {
    std::byte* first = static_cast<std::byte*>(to.raw_mutable()) + block * to.row_bytes() +
                       offset * part.token_bytes();
    const ConvertArgs args = {
        .x = {.base = reinterpret_cast<const std::byte*>(row), .stride_bytes = part.width * 4},
        .y = {.base = first, .stride_bytes = shape.block_tokens * part.token_bytes()},
        .width = part.width};
    convert(args, 0, shape.kv_heads);
  };
  // Task = (row block, sequence).
  const auto num_sequences = static_cast<int64_t>(sequences.size());
  const auto store_rows = [&](int64_t task, int) {
    const KvSequence& s = sequences[static_cast<size_t>(task % num_sequences)];
    const int64_t first = task / num_sequences * kRowsPerTask;
    for (int64_t i = first; i < std::min(s.num_tokens, first + kRowsPerTask); ++i) {
      const int64_t position = s.start_position + i;
      const int64_t index = position / shape.block_tokens;
      if (index % shape.num_parts != shape.part) continue;
      const int64_t block = s.blocks[static_cast<size_t>(index / shape.num_parts)];
      const int64_t offset = position % shape.block_tokens;
      store(k.row<float>(s.first_row + i), cache.keys, shape.keys, block, offset);
      if (shape.values.width == 0) continue;
      store(v.row<float>(s.first_row + i), cache.values, shape.values, block, offset);
    }
  };
  RunTasks(exec, MostRowBlocks(sequences) * num_sequences, 2 * TotalTokens(sequences) * k.dim(1),
           store_rows);
}

namespace {

// Both kinds; `y` has the width of one.
void AttendAll(const Exec& exec, const AttentionShape& shape, const TensorView& q,
               std::span<const KvSequence> sequences, const PagedKv& cache, const TensorView& y) {
  const CacheShape kv = CheckCache("PagedAttention", exec, cache);
  CheckAttention(shape, kv);
  CheckMatrix("PagedAttention", "q", q, DType::kF32, {q.dim(0), shape.q_heads * shape.key_dim});
  const bool is_partial = y.dim(1) == PartialWidth(shape);
  int64_t work = 0;
  for (const KvSequence& s : sequences) {
    const int64_t first = shape.FirstVisible(s.start_position);
    CheckSequence("PagedAttention", s, q.dim(0), kv, first);
    work += s.num_tokens * (s.start_position + s.num_tokens - first) * q.dim(1);
  }
  if (IsOnDevice(exec.kernels)) {
    WIDELOAD_CHECK(!is_partial, "PartialAttention: is not among the ops of {}",
                   KernelSetName(exec.kernels));
    return OnDevice(exec, "PagedAttention", &cuda::Kernels::attention)(
        *exec.stream, OnDeviceArgs(shape, q, cache, kv, y), DeviceBatch(sequences).batch());
  }

  const int64_t heads = shape.q_heads / shape.kv_heads;
  const int64_t head_tasks = (heads + kHeadsPerTask - 1) / kHeadsPerTask;
  // Task = (row block, sequence, KV head, some of its query heads), the last row blocks first: they
  // see the most keys.
  const auto num_sequences = static_cast<int64_t>(sequences.size());
  const int64_t longest = MostRowBlocks(sequences);
  const int64_t per_sequence = shape.kv_heads * head_tasks;
  RunTasks(exec, longest * num_sequences * per_sequence, work, [&](int64_t task, int) {
    const int64_t block = longest - 1 - task / (num_sequences * per_sequence);
    const KvSequence& s = sequences[static_cast<size_t>(task / per_sequence % num_sequences)];
    if (block * kRowsPerTask >= s.num_tokens) return;
    const int64_t kv_head = task % per_sequence / head_tasks;
    const int64_t first_head = task % head_tasks * kHeadsPerTask;
    Attend(exec, shape, q, cache, y,
           {.kv = kv,
            .sequence = &s,
            .first = block * kRowsPerTask,
            .kv_head = kv_head,
            .q_head = kv_head * heads + first_head,
            .heads = std::min(kHeadsPerTask, heads - first_head),
            .is_partial = is_partial});
  });
}

}  // namespace

void PagedAttention(const Exec& exec, const AttentionShape& shape, const TensorView& q,
                    std::span<const KvSequence> sequences, const PagedKv& cache,
                    const TensorView& y) {
  WIDELOAD_CHECK(cache.num_parts == 1, "PagedAttention: a part of {} of the blocks",
                 cache.num_parts);
  CheckMatrix("PagedAttention", "y", y, exec.precision().activations,
              {q.dim(0), shape.q_heads * shape.value_dim});
  AttendAll(exec, shape, q, sequences, cache, y);
}

void PartialAttention(const Exec& exec, const AttentionShape& shape, const TensorView& q,
                      std::span<const KvSequence> sequences, const PagedKv& cache,
                      const TensorView& y) {
  CheckMatrix("PartialAttention", "y", y, DType::kF32, {q.dim(0), PartialWidth(shape)});
  AttendAll(exec, shape, q, sequences, cache, y);
}

void MergeAttention(const Exec& exec, const AttentionShape& shape, const TensorView& parts,
                    const TensorView& y) {
  const int64_t num_parts = parts.dim(0);
  const int64_t rows = y.dim(0);
  const int64_t width = PartialWidth(shape);
  WIDELOAD_CHECK(parts.dtype() == DType::kF32 && parts.shape() == Shape({num_parts, rows, width}) &&
                     num_parts >= 1 && kStripes % num_parts == 0,
                 "MergeAttention: parts are {} {}; [divisor of {}, {}, {}] F32 is expected",
                 parts.shape().ToString(), DTypeName(parts.dtype()), kStripes, rows, width);
  CheckMatrix("MergeAttention", "y", y, exec.precision().activations,
              {rows, shape.q_heads * shape.value_dim});
  WIDELOAD_CHECK(!IsOnDevice(exec.kernels), "MergeAttention: is not among the ops of {}",
                 KernelSetName(exec.kernels));
  const MergeAttentionArgs args{
      .parts = {.base = static_cast<const std::byte*>(parts.raw()), .stride_bytes = width * 4},
      .part_stride = rows * width,
      .num_parts = num_parts,
      .heads = shape.q_heads,
      .value_dim = shape.value_dim,
      .y = WriteRows(y)};
  const auto merge = KernelsOf(exec.kernels).merge_attention;
  RunRows(exec, rows, num_parts * width,
          [&](int64_t begin, int64_t end) { merge(args, begin, end); });
}

}  // namespace wideload::compute
