// What a kernel set provides: plain functions that do one task's part of an op, on raw pointers.
// The ops check arguments, cut the work into tasks and call these; a kernel never sees a pool, a
// view or memory it has to allocate. Included by translation units compiled for one instruction
// set, so it must stay free of inline functions with external linkage.
#pragma once

#include <cstddef>
#include <cstdint>

namespace wideload::compute {

// Columns of a packed weight matrix come in groups of this many.
inline constexpr int64_t kGroupColumns = 16;

// Rows at a fixed distance, or, when `pointers` is set, wherever those point.
struct InRows {
  const std::byte* base = nullptr;
  int64_t stride_bytes = 0;
  const std::byte* const* pointers = nullptr;
};
struct OutRows {
  std::byte* base = nullptr;
  int64_t stride_bytes = 0;
  std::byte* const* pointers = nullptr;
};

// What happens with the fp32 sums of a dot product.
enum class GemmEpilogue {
  kStore,   // y (fp32) = sum
  kAdd,     // y (fp32) = y + sum
  kRound,   // y (compute dtype) = sum
  kSwiGlu,  // y (compute dtype) = silu(gate sum) * up sum; weights of PackGateUp
};

// y [rows, n] = epilogue(x [rows, k] W^T). For kSwiGlu, n counts the columns of y.
struct GemmArgs {
  InRows x;
  OutRows y;
  const std::byte* weights = nullptr;
  int64_t n = 0;
  int64_t k = 0;
  GemmEpilogue epilogue = GemmEpilogue::kStore;
};

// The part one task computes: rows, and groups of kGroupColumns columns of y.
struct GemmTile {
  int64_t row_begin = 0;
  int64_t row_end = 0;
  int64_t group_begin = 0;
  int64_t group_end = 0;
};

// y = x * rsqrt(mean(x^2) + eps) * weight over each of `heads` runs of `width` in a row.
struct NormArgs {
  InRows x;  // fp32
  OutRows y;
  bool y_is_f32 = true;  // else compute dtype
  const float* weight = nullptr;
  int64_t heads = 1;
  int64_t width = 0;
  float eps = 0;
};

struct ConvertArgs {
  InRows x;   // fp32
  OutRows y;  // compute dtype
  int64_t width = 0;
};

// Half-split rotation of the first 2 * half elements of every head, in place.
struct RopeArgs {
  OutRows x;  // fp32
  int64_t heads = 0;
  int64_t head_dim = 0;
  int64_t half = 0;
  const float* cos = nullptr;  // [positions, half], rows table_stride apart
  const float* sin = nullptr;
  int64_t cos_stride = 0;
  int64_t sin_stride = 0;
  const int32_t* positions = nullptr;
};

// Query rows of one sequence against one KV head.
struct AttentionArgs {
  InRows q;   // fp32, at the first query head that uses this KV head
  OutRows y;  // compute dtype, likewise
  int64_t num_rows = 0;
  int64_t first_position = 0;  // of row 0
  int64_t heads = 0;           // query heads that use this KV head
  int64_t head_dim = 0;
  float scale = 1;
  const std::byte* keys = nullptr;  // of block 0 at this KV head, compute dtype
  const std::byte* values = nullptr;
  int64_t key_block_bytes = 0;  // from one block to the next
  int64_t value_block_bytes = 0;
  int64_t block_tokens = 0;
  const int32_t* blocks = nullptr;  // position p lies in blocks[p / block_tokens]
};

struct RouterArgs {
  InRows logits;  // fp32
  int64_t experts = 0;
  int64_t top_k = 0;
  bool normalize = true;
  OutRows ids;      // int32
  OutRows weights;  // fp32
};

// y[t] += sum over k of weights[t, k] * rows[t * top_k + k].
struct CombineArgs {
  const std::byte* const* rows = nullptr;  // compute dtype; null: nothing
  InRows weights;                          // fp32
  int64_t top_k = 0;
  OutRows y;  // fp32
  int64_t width = 0;
};

// Kernels over rows take [begin, end).
struct Kernels {
  void (*gemm)(const GemmArgs&, const GemmTile&) = nullptr;      // MatrixPrecision::kCompute
  void (*gemm_f32)(const GemmArgs&, const GemmTile&) = nullptr;  // MatrixPrecision::kF32
  void (*norm)(const NormArgs&, int64_t begin, int64_t end) = nullptr;
  void (*convert)(const ConvertArgs&, int64_t begin, int64_t end) = nullptr;
  void (*rope)(const RopeArgs&, int64_t begin, int64_t end) = nullptr;
  void (*attention)(const AttentionArgs&) = nullptr;
  void (*router)(const RouterArgs&, int64_t begin, int64_t end) = nullptr;
  void (*combine)(const CombineArgs&, int64_t begin, int64_t end) = nullptr;
};

// Largest sizes a kernel's stack scratch is made for.
inline constexpr int64_t kMaxHeadDim = 1024;
inline constexpr int64_t kMaxBlockTokens = 256;
inline constexpr int64_t kMaxExperts = 4096;

const Kernels& ReferenceKernels();
const Kernels& Avx2Kernels();
const Kernels& Avx512Kernels();
const Kernels& Avx512Bf16Kernels();
const Kernels& AmxKernels();

}  // namespace wideload::compute
