// The ops of a transformer with routed experts, as free functions on views: check the arguments,
// then dispatch on exec.kernels. A row's result never depends on the other rows, the number of rows
// or the number of threads. Shapes: T tokens, H hidden, E experts, K top-k, D head size. "compute
// dtype" is ComputeDType(exec.kernels). Outputs are the last arguments.
#pragma once

#include <cstdint>
#include <span>

#include "compute/exec.h"
#include "compute/matrix.h"
#include "tensor/tensor_view.h"

namespace wideload::compute {

// y[t] = table[ids[t]]. table [V, H] F32, BF16 or F16; ids in [0, V); y [T, H] F32.
void Embed(const Exec& exec, const TensorView& table, std::span<const int32_t> ids,
           const TensorView& y);

// y = x * rsqrt(mean(x^2) + eps) * weight per row, mean and product in fp32. x [T, H] F32; weight
// [H] F32; y [T, H] F32 or compute dtype (one rounding).
void RmsNorm(const Exec& exec, const TensorView& x, const TensorView& weight, float eps,
             const TensorView& y);

// The same over each of the heads of a row: x [T, heads * D] F32 in place (rows may be strided),
// weight [D] F32.
void RmsNormHeads(const Exec& exec, const TensorView& x, int64_t num_heads,
                  const TensorView& weight, float eps);

// x (F32) to y (F32 or compute dtype), same shape.
void Convert(const Exec& exec, const TensorView& x, const TensorView& y);

// y = x W^T, or y += x W^T with `accumulate`. x [T, k] in compute dtype (F32 for
// MatrixPrecision::kF32); y [T, n] F32 (rows may be strided).
void MatMul(const Exec& exec, const TensorView& x, const PackedMatrix& w, const TensorView& y,
            bool accumulate = false);

// y = silu(x Wgate^T) * (x Wup^T) with w of PackGateUp, activation on the fp32 sums. y [T, i]
// compute dtype.
void MatMulSwiGlu(const Exec& exec, const TensorView& x, const PackedMatrix& w,
                  const TensorView& y);

// The weights of one expert: y = down(silu(gate x) * (up x)).
struct ExpertWeights {
  PackedMatrix gate_up;  // [2 I, H]
  PackedMatrix down;     // [H, I]
};

// The rows one slot has to compute in this chunk: gathered from and stored to places named by
// pointers, so that they may lie in receive buffers and in peers' return buffers.
struct ExpertGroup {
  const ExpertWeights* weights = nullptr;
  std::span<const std::byte* const> x_rows;  // num_rows pointers to [H] compute dtype
  std::span<std::byte* const> y_rows;        // num_rows pointers to [H] compute dtype, written
};

// All groups of one rank: y = expert(x) for each row, rounded once to compute dtype. Groups may be
// empty. Memory: scratch from `workspace`, sized by the rows of all groups.
void ExpertMlp(const Exec& exec, std::span<const ExpertGroup> groups, Workspace& workspace);

// Tables cos, sin [max_positions, rotary_dim / 2] F32 are made by the model (yarn and friends
// change only the tables). Rotates pairs (i, i + rotary_dim / 2) of the first rotary_dim elements
// of every head, in place. x [T, heads * D] F32, rows may be strided.
struct RopeTable {
  TensorView cos;
  TensorView sin;
};
void RopeHalfSplit(const Exec& exec, const TensorView& x, int64_t num_heads, const RopeTable& table,
                   std::span<const int32_t> positions);

// One layer's paged KV cache. keys and values: [num_blocks, kv_heads, block_tokens, D] in compute
// dtype; block_tokens is at most 256 and D at most 1024.
struct PagedKv {
  TensorView keys;
  TensorView values;
};

// One sequence's part of the batch: rows [first_row, first_row + num_tokens) are its positions
// start .. start + num_tokens - 1; blocks[p / block_tokens] holds position p.
struct KvSequence {
  int64_t first_row = 0;
  int64_t num_tokens = 0;
  int64_t start_position = 0;
  std::span<const int32_t> blocks;
};

// Writes keys and values of this batch into the cache, rounded to its dtype. k, v [T, kv_heads * D]
// F32 (rows may be strided).
void StoreKv(const Exec& exec, const TensorView& k, const TensorView& v,
             std::span<const KvSequence> sequences, const PagedKv& cache);

// Causal attention over the cache (this batch's keys are already stored): softmax(scale q k^T) v
// with grouped heads (query head j uses KV head j / (q_heads / kv_heads)). KV is walked in tiles of
// block_tokens counted from position 0; places after the query's own are never touched. q [T,
// q_heads * D] F32 (rows may be strided); y [T, q_heads * D] compute dtype.
struct AttentionShape {
  int64_t q_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  float scale = 1;
};
void PagedAttention(const Exec& exec, const AttentionShape& shape, const TensorView& q,
                    std::span<const KvSequence> sequences, const PagedKv& cache,
                    const TensorView& y);

// Softmax over all E experts in fp32, then the K largest (ties: the lowest id; a NaN counts as the
// smallest, so K distinct valid ids come out even of NaN logits); `normalize` divides the K weights
// by their sum. E is at most 4096. logits [T, E] F32; ids [T, K] I32 in descending order of weight;
// weights [T, K] F32.
struct RouterOptions {
  int64_t top_k = 1;
  bool normalize = true;
};
void RouterSoftmaxTopK(const Exec& exec, const TensorView& logits, const RouterOptions& options,
                       const TensorView& ids, const TensorView& weights);

// y[t] += sum over k ascending of weights[t, k] * rows[t * K + k], in fp32. rows: T * K pointers to
// [H] compute dtype; weights [T, K] F32; y [T, H] F32. A null pointer contributes nothing.
void CombineRows(const Exec& exec, std::span<const std::byte* const> rows,
                 const TensorView& weights, const TensorView& y);

}  // namespace wideload::compute
