// What a kernel set of an accelerator provides: functions that put one op on a stream. The ops have
// checked the arguments; all pointers are to memory that the device reaches, and views of
// compute/kernels.h mean the same there. A row's result depends on neither the number of rows nor
// which others there are.
#pragma once

#include <cstdint>
#include <span>

#include "compute/kernels.h"
#include "device/device.h"

namespace wideload::compute::cuda {

// What the numbers of a table are stored as.
enum class TableFormat { kF32, kBf16, kF16 };

// y[t] = table[ids[t]].
struct EmbedArgs {
  const std::byte* table = nullptr;
  int64_t row_bytes = 0;
  TableFormat format = TableFormat::kF32;
  const int32_t* ids = nullptr;
  OutRows y;  // fp32
  int64_t width = 0;
};

// y's part of every head = x's part of it, times row_scales[row].
struct ConvertHeadsArgs {
  InRows x;  // fp32
  OutRows y;
  bool y_is_f32 = true;  // else activations
  int64_t heads = 1;
  int64_t width = 0;     // of a part
  int64_t x_stride = 0;  // from head to head, in elements
  int64_t y_stride = 0;
  const float* row_scales = nullptr;  // null: ones
};

// y[i] = x[indices[i]], of row_bytes each.
struct GatherArgs {
  InRows x;
  const int32_t* indices = nullptr;
  OutRows y;
  int64_t row_bytes = 0;
};

// *to[i] = *from[i], of row_bytes each, whatever their alignment; no row of `to` is one of `from`.
struct CopyRowsArgs {
  const std::byte* const* from = nullptr;
  std::byte* const* to = nullptr;
  int64_t row_bytes = 0;
  int64_t rows = 0;
};

// One sequence's part of the batch, as KvSequence of ops.h: position p lies in block
// blocks[first_block + p / block_tokens] of its batch.
struct Sequence {
  int64_t first_row = 0;
  int64_t num_tokens = 0;
  int64_t start_position = 0;
  int64_t first_block = 0;
};

// What one step has; both are memory of the host, used before a function returns.
struct Batch {
  std::span<const Sequence> sequences;
  std::span<const int32_t> blocks;
};

// A layer's paged cache in bf16, with values of their own.
struct KvCache {
  std::byte* keys = nullptr;  // of block 0, head 0
  std::byte* values = nullptr;
  int64_t key_block_bytes = 0;  // from one block to the next
  int64_t value_block_bytes = 0;
  int64_t kv_heads = 0;
  int64_t block_tokens = 0;
  int64_t key_dim = 0;
  int64_t value_dim = 0;
};

// The keys and values of a batch, and where they go.
struct StoreKvArgs {
  InRows k;  // fp32
  InRows v;
  KvCache cache;
};

// Heads of at most kMaxAttentionDim elements.
struct PagedAttentionArgs {
  InRows q;   // fp32
  OutRows y;  // bf16
  KvCache cache;
  int64_t heads = 0;  // query heads of a KV head
  float scale = 1;
  int64_t window = 0;  // as in AttentionArgs
  int64_t chunk = 0;
  std::span<const float> sinks;  // one per query head, memory of the host; empty: none
};
// Elements of a head at most.
inline constexpr int64_t kMaxAttentionDim = 256;
// Blocks of a cache at most.
inline constexpr int64_t kMaxCacheBlocks = int64_t{1} << 22;

// One of several products that are alike but for their rows and weights.
struct GemmProduct {
  InRows x;
  OutRows y;
  const std::byte* weights = nullptr;
  const float* bias = nullptr;
  int64_t rows = 0;
};

// What they have in common, as in GemmArgs.
struct GemmShape {
  int64_t group_bytes = 0;
  int64_t n = 0;
  int64_t k = 0;
  GemmEpilogue epilogue = GemmEpilogue::kStore;
  GatedActivation activation;
};

// y = epilogue(x W^T + bias) for each of `products`, for the host and, if there are several, for
// the device.
struct GemmCall {
  GemmShape shape;
  std::span<const GemmProduct> products;
  const GemmProduct* device_products = nullptr;
};

// By op.
struct Kernels {
  // ops.h Embed.
  void (*embed)(device::Stream&, const EmbedArgs&, int64_t rows) = nullptr;
  // MatMul of fp32 weights.
  void (*gemm_f32)(device::Stream&, const GemmCall&) = nullptr;
  // Products of bf16 weights: MatMul, MatMulGated, and one of the two of all experts.
  void (*gemm_bf16)(device::Stream&, const GemmCall&) = nullptr;
  // RmsNorm, RmsNormHeads.
  void (*norm)(device::Stream&, const NormArgs&, int64_t rows) = nullptr;
  // Convert, ConvertScaled, ConvertHeads.
  void (*convert)(device::Stream&, const ConvertHeadsArgs&, int64_t rows) = nullptr;
  // Rope.
  void (*rope)(device::Stream&, const RopeArgs&, int64_t rows) = nullptr;
  // Route.
  void (*router)(device::Stream&, const RouterArgs&, int64_t rows) = nullptr;
  // CombineRows.
  void (*combine)(device::Stream&, const CombineArgs&, int64_t rows) = nullptr;
  // GatherRows.
  void (*gather_rows)(device::Stream&, const GatherArgs&, int64_t rows) = nullptr;
  // Rows of the exchange.
  void (*copy_rows)(device::Stream&, const CopyRowsArgs&) = nullptr;
  // Where a key or a value of a position and head is not finite, the key is stored as NaN and the
  // value as 0: attention multiplies values with the weight 0 of rows that do not see them.
  void (*store_kv)(device::Stream&, const StoreKvArgs&, const Batch&) = nullptr;
  // PagedAttention.
  void (*attention)(device::Stream&, const PagedAttentionArgs&, const Batch&) = nullptr;
};

// mma.sync, compute capability 8.0 and higher. Null where the build has no CUDA.
const Kernels* MmaKernels();
// The same kernels on this processor, for streams of an emulated device. Only in tests.
const Kernels* EmulatedMmaKernels();

}  // namespace wideload::compute::cuda
