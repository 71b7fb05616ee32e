// The ops of a transformer with routed experts, as free functions on views: check the arguments,
// then dispatch on exec.kernels. A row's result never depends on the other rows, the number of rows
// or the number of threads. Shapes: T tokens, H hidden, E experts, K top-k, D head size.
// "activations" is exec.precision().activations. Outputs are the last arguments. Where the kernel
// set is on a device, views and spans of weights and activations are memory of it; what else a span
// holds (ids, indices, pointers to rows) is memory of the host, which may change after the call.
#pragma once

#include <cstdint>
#include <span>

#include "compute/activation.h"
#include "compute/exec.h"
#include "compute/matrix.h"
#include "tensor/buffer.h"
#include "tensor/tensor_view.h"

namespace wideload::compute {

// y[t] = table[ids[t]]. table [V, H] F32, BF16 or F16; ids in [0, V); y [T, H] F32.
void Embed(const Exec& exec, const TensorView& table, std::span<const int32_t> ids,
           const TensorView& y);

// y = x * rsqrt(mean(x^2) + eps) * weight per row, mean and product in fp32. x [T, H] F32 (rows may
// be strided); weight [H] F32, or empty: ones; y [T, H] F32 (may be x) or activations (one
// rounding).
void RmsNorm(const Exec& exec, const TensorView& x, const TensorView& weight, float eps,
             const TensorView& y);

// The same part of every head: elements [first, first + width) of each of the `heads` equal runs of
// a row. rows [T, heads * D] may be strided; width 0: all from `first`.
struct HeadPart {
  TensorView rows;
  int64_t heads = 1;
  int64_t first = 0;
  int64_t width = 0;
};

// RmsNorm of each head's part, in place. x F32; weight [width] F32, or empty: ones.
void RmsNormHeads(const Exec& exec, const HeadPart& x, const TensorView& weight, float eps);

// x (F32) to y (F32 or activations), same shape.
void Convert(const Exec& exec, const TensorView& x, const TensorView& y);
// y = x * scales[t]; scales [T] where x is. For experts whose router weight belongs to the input
// and for queries with a temperature of their position (Llama 4). x [T, H] F32; y [T, H] F32 (may
// be x) or activations (one rounding).
void ConvertScaled(const Exec& exec, const TensorView& x, std::span<const float> scales,
                   const TensorView& y);
// y[i] = x[indices[i]]. x [N, W] F32 or activations; indices in [0, N), any order, repeats too; y
// [n, W] of x's dtype, not overlapping x. Rows may be strided.
void GatherRows(const Exec& exec, const TensorView& x, std::span<const int32_t> indices,
                const TensorView& y);
// Copies x's part of every head to y's (F32 to F32 or activations); as many heads, equal widths.
void ConvertHeads(const Exec& exec, const HeadPart& x, const HeadPart& y);

// y = x W^T + bias, or y += x W^T + bias with `accumulate`. x [T, k] in InputDType of w's format
// (F32 for kF32, else activations); y [T, n] F32, or activations (one rounding; not with
// `accumulate`). Rows may be strided.
void MatMul(const Exec& exec, const TensorView& x, const PackedMatrix& w, const TensorView& y,
            bool accumulate = false);

// One small product per head: y's part of head h = x's part of head h times w[h]^T. x as MatMul,
// width k; y F32 or activations, width n; all of w have one shape. MLA: q_nope to the latent space
// (W_UK), the attended latent to values (W_UV).
void MatMulHeads(const Exec& exec, const HeadPart& x, std::span<const PackedMatrix> w,
                 const HeadPart& y);

// y = activation(x Wgate^T + bgate, x Wup^T + bup) on the fp32 sums, with w packed as gate and up.
// y [T, i] activations.
void MatMulGated(const Exec& exec, const TensorView& x, const PackedMatrix& w,
                 const GatedActivation& activation, const TensorView& y);

// The rows one slot has to compute in this chunk: gathered from and stored to places named by
// pointers, so that they may lie in receive buffers and in peers' return buffers.
struct ExpertGroup {
  const ExpertWeights* weights = nullptr;
  std::span<const std::byte* const> x_rows;  // num_rows pointers to [H] activations
  std::span<std::byte* const> y_rows;        // num_rows pointers to [H] activations, written
};

// All groups of one rank: y = expert(x) for each row, rounded once to activations. Groups may be
// empty; all have one ExpertShape. Memory: scratch from `workspace`, sized by the rows of all
// groups.
void ExpertMlp(const Exec& exec, std::span<const ExpertGroup> groups,
               const GatedActivation& activation, Workspace& workspace);

// The two halves of ExpertMlp, for ranks with parts of the same experts: each computes its columns
// of `gated` and, once it has those of all, its columns of y. gated [rows of all groups, columns]
// activations, one group's rows after the other's; may be strided.
void ExpertGateUp(const Exec& exec, std::span<const ExpertGroup> groups,
                  const GatedActivation& activation, Workspace& workspace, const TensorView& gated);
void ExpertDown(const Exec& exec, std::span<const ExpertGroup> groups, Workspace& workspace,
                const TensorView& gated);

// Which elements a rotation pairs: (i, i + rotary_dim / 2), or (2 i, 2 i + 1).
enum class RopePairs { kHalfSplit, kInterleaved };

// cos, sin [T, rotary_dim / 2] F32 of each row's position, made by the model (yarn and friends
// change nothing else).
struct RopeRows {
  TensorView cos;
  TensorView sin;
};

// Rotates the first rotary_dim elements of every head's part, in place. x [T, ...] F32.
void Rope(const Exec& exec, const HeadPart& x, RopePairs pairs, const RopeRows& rope);

// One layer's paged KV cache, in exec.precision().kv_cache: keys [num_blocks, kv_heads,
// block_tokens, key width], values [num_blocks, kv_heads, block_tokens, value width], or empty: a
// value is the beginning of its key (MLA's latent). block_tokens is at most 256, widths at most
// 1024. Of several ranks that divide the blocks of their sequences among themselves, num_parts (a
// divisor of 8), this one has those that are `part` modulo num_parts.
struct PagedKv {
  TensorView keys;
  TensorView values;
  int64_t part = 0;
  int64_t num_parts = 1;
};

// One sequence's part of the batch: rows [first_row, first_row + num_tokens) are its positions
// start .. start + num_tokens - 1; blocks[p / block_tokens / num_parts] holds position p. Entries
// of blocks that no row sees (behind a window) are not looked at.
struct KvSequence {
  int64_t first_row = 0;
  int64_t num_tokens = 0;
  int64_t start_position = 0;
  std::span<const int32_t> blocks;
};

// Writes keys and values of this batch into the cache, rounded to its dtype; those of blocks that
// are not in its part are left out. On a device, where either has something that is not finite, the
// key is NaN and the value 0. k [T, kv_heads * key width] F32, v [T, kv_heads * value width] F32,
// or empty where the cache has no values (rows may be strided).
void StoreKv(const Exec& exec, const TensorView& k, const TensorView& v,
             std::span<const KvSequence> sequences, const PagedKv& cache);

// Grouped heads: query head j uses KV head j / (q_heads / kv_heads).
struct AttentionShape {
  int64_t q_heads = 0;
  int64_t kv_heads = 0;
  int64_t key_dim = 0;
  int64_t value_dim = 0;
  float scale = 1;
  // A position sees at most this many keys, the last one its own; 0: no limit.
  int64_t window = 0;
  // A position sees keys of its own chunk of this many positions, counted from 0; 0: no limit.
  int64_t chunk = 0;
  // A logit per query head that takes part in the softmax but has no value; empty: none.
  std::span<const float> sinks;

  // The first position that `position` sees.
  int64_t FirstVisible(int64_t position) const;
};

// Causal attention over the cache (this batch's keys are already stored): softmax(scale q k^T) v.
// Blocks are walked in eight stripes, block b in b mod 8, whose softmaxes are added in a fixed
// tree; places that a position does not see are never touched, and blocks that none of a sequence's
// rows sees are not read. On a device: parts of 256 positions in their order instead of stripes;
// heads of at most 256, and the cache has values. q [T, q_heads * key_dim] F32 (rows may be
// strided); y [T, q_heads * value_dim] activations. The cache has all blocks.
void PagedAttention(const Exec& exec, const AttentionShape& shape, const TensorView& q,
                    std::span<const KvSequence> sequences, const PagedKv& cache,
                    const TensorView& y);

// What a row of PartialAttention has.
inline int64_t PartialWidth(const AttentionShape& shape) {
  return shape.q_heads * (shape.value_dim + 2);
}
// Not on a device: the part of PagedAttention that is of the cache's blocks, before the division: y
// [T, PartialWidth] F32, of each head the weighted sum of values, the largest score and the sum of
// weights; where that is 0 the part has nothing that the row sees, and the others mean nothing.
void PartialAttention(const Exec& exec, const AttentionShape& shape, const TensorView& q,
                      std::span<const KvSequence> sequences, const PagedKv& cache,
                      const TensorView& y);
// Not on a device: y = what PagedAttention makes of all blocks, bit for bit. parts [num_parts, T,
// PartialWidth] F32, what PartialAttention makes of each part; y [T, q_heads * value_dim]
// activations (rows may be strided).
void MergeAttention(const Exec& exec, const AttentionShape& shape, const TensorView& parts,
                    const TensorView& y);

// How logits become scores of experts.
enum class RouterScore { kSoftmax, kSigmoid };
// What a group of experts is chosen by: scores of its best experts.
enum class GroupScore { kLargest, kTwoLargest };

// How experts are chosen and weighed. Scores are the softmax over all experts or the sigmoid of
// each logit, in fp32. The choice goes by score + correction_bias (sigmoid without a bias: by
// logit, which is the same order but for saturation); the weight is the score.
struct RouterOptions {
  int64_t top_k = 1;
  RouterScore score = RouterScore::kSoftmax;
  // [E] F32 where the logits are, for the choice only (DeepSeek-V3's e_score_correction_bias);
  // empty: none.
  std::span<const float> correction_bias;
  // Experts lie in num_groups equal groups, and only those of the top_groups groups of the largest
  // score are chosen. A group's score is its largest choice (DeepSeek-V2) or the sum of its two
  // largest (V3).
  int64_t num_groups = 1;
  int64_t top_groups = 1;
  GroupScore group_score = GroupScore::kLargest;
  // Divides the K weights by (their sum + normalize_epsilon). Softmax over the chosen alone
  // (Mixtral, GPT-OSS) is the softmax over all, normalised.
  bool normalize = true;
  float normalize_epsilon = 0;
  float scale = 1;  // of the weights, last
};

// The K experts of each row, in descending order of choice, ties to the lowest id; a NaN counts as
// the smallest, so K distinct valid ids come out even of NaN logits. E is at most 4096. logits [T,
// E] F32; ids [T, K] I32; weights [T, K] F32.
void Route(const Exec& exec, const TensorView& logits, const RouterOptions& options,
           const TensorView& ids, const TensorView& weights);

// y[t] += sum over k ascending of weights[t, k] * rows[t * K + k], in fp32. rows: T * K pointers to
// [H] activations; weights [T, K] F32; y [T, H] F32. A null pointer contributes nothing.
void CombineRows(const Exec& exec, std::span<const std::byte* const> rows,
                 const TensorView& weights, const TensorView& y);

}  // namespace wideload::compute
