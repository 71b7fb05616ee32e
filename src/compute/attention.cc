#include <algorithm>

#include "compute/dispatch.h"
#include "compute/ops.h"

namespace wideload::compute {
namespace {

// Rows of one sequence that one task takes.
constexpr int64_t kRowsPerTask = 16;

struct CacheShape {
  int64_t num_blocks = 0;
  int64_t kv_heads = 0;
  int64_t block_tokens = 0;
  int64_t head_dim = 0;
  int64_t token_bytes = 0;
  int64_t head_bytes() const { return block_tokens * token_bytes; }  // one KV head of one block
};

CacheShape CheckCache(const char* op, const Exec& exec, const PagedKv& cache) {
  const Shape& shape = cache.keys.shape();
  WIDELOAD_CHECK(shape.rank() == 4 && cache.values.shape() == shape &&
                     cache.keys.dtype() == ComputeDType(exec.kernels) &&
                     cache.values.dtype() == cache.keys.dtype(),
                 "{}: keys are {} {}, values {} {}; [num_blocks, kv_heads, block_tokens, D] {} is "
                 "expected",
                 op, DTypeName(cache.keys.dtype()), shape.ToString(),
                 DTypeName(cache.values.dtype()), cache.values.shape().ToString(),
                 DTypeName(ComputeDType(exec.kernels)));
  WIDELOAD_CHECK(
      shape[2] >= 1 && shape[2] <= kMaxBlockTokens && shape[3] >= 1 && shape[3] <= kMaxHeadDim,
      "{}: blocks of {} tokens ({} at most), heads of {} ({} at most)", op, shape[2],
      kMaxBlockTokens, shape[3], kMaxHeadDim);
  return {.num_blocks = shape[0],
          .kv_heads = shape[1],
          .block_tokens = shape[2],
          .head_dim = shape[3],
          .token_bytes = shape[3] * DTypeBytes(cache.keys.dtype())};
}

void CheckSequence(const char* op, const KvSequence& s, int64_t rows, const CacheShape& shape) {
  WIDELOAD_CHECK(s.first_row >= 0 && s.num_tokens >= 0 && s.first_row + s.num_tokens <= rows &&
                     s.start_position >= 0,
                 "{}: rows {} and {} more of {}, from position {}", op, s.first_row, s.num_tokens,
                 rows, s.start_position);
  const int64_t end = s.start_position + s.num_tokens;
  const int64_t needed = (end + shape.block_tokens - 1) / shape.block_tokens;
  WIDELOAD_CHECK(static_cast<int64_t>(s.blocks.size()) >= needed,
                 "{}: {} blocks of {} tokens for {} positions", op, s.blocks.size(),
                 shape.block_tokens, end);
  for (int64_t i = 0; i < needed; ++i) {
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

}  // namespace

void StoreKv(const Exec& exec, const TensorView& k, const TensorView& v,
             std::span<const KvSequence> sequences, const PagedKv& cache) {
  const CacheShape shape = CheckCache("StoreKv", exec, cache);
  CheckMatrix("StoreKv", "k", k, DType::kF32, {k.dim(0), shape.kv_heads * shape.head_dim});
  CheckMatrix("StoreKv", "v", v, DType::kF32, k.shape());
  for (const KvSequence& s : sequences) CheckSequence("StoreKv", s, k.dim(0), shape);
  const auto convert = KernelsOf(exec.kernels).convert;
  // A row's heads lie kv_heads runs of head_dim apart here, and whole blocks' heads apart there.
  const auto store = [&](const float* row, const TensorView& to, int64_t block, int64_t offset) {
    std::byte* first = static_cast<std::byte*>(to.raw_mutable()) + block * to.row_bytes() +
                       offset * shape.token_bytes;
    const ConvertArgs args = {
        .x = {.base = reinterpret_cast<const std::byte*>(row), .stride_bytes = shape.head_dim * 4},
        .y = {.base = first, .stride_bytes = shape.head_bytes()},
        .width = shape.head_dim};
    convert(args, 0, shape.kv_heads);
  };
  // Task = (row block, sequence).
  const auto num_sequences = static_cast<int64_t>(sequences.size());
  const auto store_rows = [&](int64_t task, int) {
    const KvSequence& s = sequences[static_cast<size_t>(task % num_sequences)];
    const int64_t first = task / num_sequences * kRowsPerTask;
    for (int64_t i = first; i < std::min(s.num_tokens, first + kRowsPerTask); ++i) {
      const int64_t position = s.start_position + i;
      const int64_t block = s.blocks[static_cast<size_t>(position / shape.block_tokens)];
      store(k.row<float>(s.first_row + i), cache.keys, block, position % shape.block_tokens);
      store(v.row<float>(s.first_row + i), cache.values, block, position % shape.block_tokens);
    }
  };
  RunTasks(exec, MostRowBlocks(sequences) * num_sequences, 2 * TotalTokens(sequences) * k.dim(1),
           store_rows);
}

void PagedAttention(const Exec& exec, const AttentionShape& shape, const TensorView& q,
                    std::span<const KvSequence> sequences, const PagedKv& cache,
                    const TensorView& y) {
  const CacheShape kv = CheckCache("PagedAttention", exec, cache);
  WIDELOAD_CHECK(shape.head_dim == kv.head_dim && shape.kv_heads == kv.kv_heads &&
                     shape.q_heads > 0 && shape.q_heads % shape.kv_heads == 0,
                 "PagedAttention: {} query heads of {} over a cache of {} heads of {}",
                 shape.q_heads, shape.head_dim, kv.kv_heads, kv.head_dim);
  const Shape rows = {q.dim(0), shape.q_heads * shape.head_dim};
  CheckMatrix("PagedAttention", "q", q, DType::kF32, rows);
  CheckMatrix("PagedAttention", "y", y, ComputeDType(exec.kernels), rows);
  int64_t work = 0;
  for (const KvSequence& s : sequences) {
    CheckSequence("PagedAttention", s, q.dim(0), kv);
    work += s.num_tokens * (s.start_position + s.num_tokens) * rows[1];
  }

  const int64_t heads = shape.q_heads / shape.kv_heads;
  const auto attention = KernelsOf(exec.kernels).attention;
  const auto attend = [&](const KvSequence& s, int64_t first, int64_t kv_head) {
    const int64_t column = kv_head * heads * shape.head_dim;
    const int64_t row = s.first_row + first;
    const int64_t y_bytes = DTypeBytes(y.dtype());
    attention(
        {.q = {.base = reinterpret_cast<const std::byte*>(q.row<float>(row) + column),
               .stride_bytes = q.row_bytes()},
         .y = {.base = static_cast<std::byte*>(y.raw_mutable()) + row * y.row_bytes() +
                       column * y_bytes,
               .stride_bytes = y.row_bytes()},
         .num_rows = std::min(kRowsPerTask, s.num_tokens - first),
         .first_position = s.start_position + first,
         .heads = heads,
         .head_dim = shape.head_dim,
         .scale = shape.scale,
         .keys = static_cast<const std::byte*>(cache.keys.raw()) + kv_head * kv.head_bytes(),
         .values = static_cast<const std::byte*>(cache.values.raw()) + kv_head * kv.head_bytes(),
         .key_block_bytes = cache.keys.row_bytes(),
         .value_block_bytes = cache.values.row_bytes(),
         .block_tokens = kv.block_tokens,
         .blocks = s.blocks.data()});
  };
  // Task = (row block, sequence, KV head), the last row blocks first: they see the most keys.
  const auto num_sequences = static_cast<int64_t>(sequences.size());
  const int64_t longest = MostRowBlocks(sequences);
  RunTasks(exec, longest * num_sequences * kv.kv_heads, work, [&](int64_t task, int) {
    const int64_t block = longest - 1 - task / (num_sequences * kv.kv_heads);
    const KvSequence& s = sequences[static_cast<size_t>(task / kv.kv_heads % num_sequences)];
    if (block * kRowsPerTask < s.num_tokens) attend(s, block * kRowsPerTask, task % kv.kv_heads);
  });
}

}  // namespace wideload::compute
