// What a kernel set provides: plain functions that do one task's part of an op, on raw pointers.
// The ops check arguments, cut the work into tasks and call these; a kernel never sees a pool, a
// view or memory it has to allocate. Included by translation units compiled for one instruction
// set, so it must stay free of inline functions with external linkage.
#pragma once

#include <cstddef>
#include <cstdint>

#include "compute/activation.h"

namespace wideload::compute {

// Columns of a packed weight matrix come in groups of this many.
inline constexpr int64_t kGroupColumns = 16;

// The packed layouts of compute/weight_format.h. k of bf16 and fp8 groups is padded to the 32 of an
// AMX tile; a line of scales has the size of a cache line.
inline constexpr int64_t kTileK = 32;
inline constexpr int64_t kScaleLineBytes = 64;
inline constexpr int64_t kFp8BlockN = 128;
inline constexpr int64_t kFp8BlockK = 128;
inline constexpr int64_t kFourBitBlockK = 32;
inline constexpr int64_t kFourBitBlockBytes = kFourBitBlockK * kGroupColumns / 2;
inline constexpr int64_t kInt4ScaleLineK = 64;
inline constexpr int64_t kMxfp4ScaleLineK = 128;

// Rows at a fixed distance, or, when `pointers` is set, wherever those point.
struct InRows {
  const std::byte* base = nullptr;
  int64_t stride_bytes = 0;
  const std::byte* const* pointers = nullptr;
};
// Rows to write; the same layout as InRows.
struct OutRows {
  std::byte* base = nullptr;
  int64_t stride_bytes = 0;
  std::byte* const* pointers = nullptr;
};

// What happens with the fp32 sums of a dot product, after the bias was added.
enum class GemmEpilogue {
  kStore,  // y (fp32) = sum
  kAdd,    // y (fp32) = y + sum
  kRound,  // y (activations) = sum
  kGated,  // y (activations) = activation(gate sum, up sum); weights packed as gate and up
};

// y [rows, n] = epilogue(x [rows, k] W^T + bias). For kGated, n counts the columns of y.
struct GemmArgs {
  InRows x;
  OutRows y;
  const std::byte* weights = nullptr;
  int64_t group_bytes = 0;      // from one packed group of weights to the next
  const float* bias = nullptr;  // one per packed column; null: none
  int64_t n = 0;
  int64_t k = 0;
  GemmEpilogue epilogue = GemmEpilogue::kStore;
  GatedActivation activation;
};

// Rows of a GemmTile at most.
inline constexpr int64_t kTaskRows = 96;

// The part one task computes: rows, and groups of kGroupColumns columns of y.
struct GemmTile {
  int64_t row_begin = 0;
  int64_t row_end = 0;
  int64_t group_begin = 0;
  int64_t group_end = 0;
  // Weights that this thread reads after this tile, as far as is known: they are on their way then.
  const std::byte* next = nullptr;
};

// A part of every head of a row: `heads` runs of `width` elements, `stride` apart.
struct HeadRuns {
  int64_t heads = 1;
  int64_t stride = 0;
  int64_t width = 0;
};

// y = x * rsqrt(mean(x^2) + eps) * weight over each run of a row.
struct NormArgs {
  InRows x;  // fp32
  OutRows y;
  bool y_is_f32 = true;           // else activations
  const float* weight = nullptr;  // null: ones
  HeadRuns runs;
  float eps = 0;
};

// y = x * row_scales[row].
struct ConvertArgs {
  InRows x;   // fp32
  OutRows y;  // activations
  int64_t width = 0;
  const float* row_scales = nullptr;  // null: ones
};

// Rotation of the first 2 * half elements of every run of a row, in place: pairs (i, i + half), or
// (2 i, 2 i + 1) when interleaved.
struct RopeArgs {
  OutRows x;  // fp32
  HeadRuns runs;
  int64_t half = 0;
  bool interleaved = false;
  const float* cos = nullptr;  // [rows, half], rows cos_stride apart
  const float* sin = nullptr;
  int64_t cos_stride = 0;
  int64_t sin_stride = 0;
};

// Block b of a sequence's cache is in stripe b % kStripes. Each stripe has a softmax of its own,
// and these are added in the order of fold_order.h: so results depend on neither how many ranks
// have the stripes nor which.
inline constexpr int64_t kStripes = 8;
inline constexpr int64_t kFoldDepth = 4;  // of its tree: 1 + log2

// Query rows of one sequence against one KV head.
struct AttentionArgs {
  InRows q;   // fp32, at the first of these query heads, key_dim apart
  OutRows y;  // activations, likewise, value_dim apart; partial results are fp32, value_dim + 2
              // apart: sum of exp(score - largest) * value, largest, sum of exp(score - largest)
  int64_t num_rows = 0;
  int64_t first_position = 0;  // of row 0
  int64_t heads = 0;           // query heads, all of this KV head
  int64_t key_dim = 0;
  int64_t value_dim = 0;
  float scale = 1;
  int64_t window = 0;                 // keys a position sees at most, itself included; 0: all
  int64_t chunk = 0;                  // keys are seen from positions of the same chunk; 0: from all
  const float* sinks = nullptr;       // one per head; null: none
  const std::byte* keys = nullptr;    // of block 0 at this KV head, in the cache's dtype
  const std::byte* values = nullptr;  // null: the first value_dim elements of each key
  int64_t key_block_bytes = 0;        // from one block to the next
  int64_t value_block_bytes = 0;
  int64_t block_tokens = 0;
  // Position p lies in blocks[p / block_tokens / num_parts], of which only those blocks are looked
  // at that are `part` modulo num_parts, a divisor of kStripes.
  const int32_t* blocks = nullptr;
  int64_t part = 0;
  int64_t num_parts = 1;
  bool is_partial = false;  // whether y gets partial results
};

// y = the softmax that `num_parts` partial results of each row and head are of.
struct MergeAttentionArgs {
  InRows parts;             // of part 0, as AttentionArgs writes them
  int64_t part_stride = 0;  // from one part to the next, in elements
  int64_t num_parts = 1;
  int64_t heads = 0;
  int64_t value_dim = 0;
  OutRows y;  // activations
};

// Which experts the rows of one task choose, and with what weights.
struct RouterArgs {
  InRows logits;  // fp32
  int64_t experts = 0;
  int64_t top_k = 0;
  bool sigmoid = false;         // else softmax
  const float* bias = nullptr;  // [experts], added for the choice only; null: none
  int64_t num_groups = 1;
  int64_t top_groups = 1;
  bool group_by_two = false;  // a group's score is the sum of its two largest, else its largest
  bool normalize = true;
  float normalize_epsilon = 0;
  float scale = 1;
  OutRows ids;      // int32
  OutRows weights;  // fp32
};

// y[t] += sum over k of weights[t, k] * rows[t * top_k + k].
struct CombineArgs {
  const std::byte* const* rows = nullptr;  // activations; null: nothing
  InRows weights;                          // fp32
  int64_t top_k = 0;
  OutRows y;  // fp32
  int64_t width = 0;
};

// One tile of a product.
using GemmKernel = void(const GemmArgs&, const GemmTile&);

// Places in Kernels::gemm, which are those of WeightFormat.
enum { kF32Gemm, kBf16Gemm, kFp8Gemm, kInt4Gemm, kMxfp4Gemm, kNumGemms };

// Kernels over rows take [begin, end).
struct Kernels {
  GemmKernel* gemm[kNumGemms] = {};  // by WeightFormat
  void (*norm)(const NormArgs&, int64_t begin, int64_t end) = nullptr;
  void (*convert)(const ConvertArgs&, int64_t begin, int64_t end) = nullptr;
  void (*rope)(const RopeArgs&, int64_t begin, int64_t end) = nullptr;
  void (*attention)(const AttentionArgs&) = nullptr;
  void (*merge_attention)(const MergeAttentionArgs&, int64_t begin, int64_t end) = nullptr;
  void (*router)(const RouterArgs&, int64_t begin, int64_t end) = nullptr;
  void (*combine)(const CombineArgs&, int64_t begin, int64_t end) = nullptr;
};

// Largest sizes a kernel's stack scratch is made for.
inline constexpr int64_t kMaxHeadDim = 1024;
inline constexpr int64_t kMaxBlockTokens = 256;
inline constexpr int64_t kMaxExperts = 4096;
inline constexpr int64_t kMaxExpertGroups = 256;

// One table per instruction set, by file; only the reference runs on every processor.
const Kernels& ReferenceKernels();
// Needs a processor with AVX2; those below need what they are named after.
const Kernels& Avx2Kernels();
// Needs AVX-512.
const Kernels& Avx512Kernels();
// Needs AVX-512 with BF16.
const Kernels& Avx512Bf16Kernels();
// Needs AMX with BF16.
const Kernels& AmxKernels();

}  // namespace wideload::compute
